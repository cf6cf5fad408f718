"""`iterpo up` over stand-ins for the three services: what it prints, and that Ctrl-C ends everything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from iterpo.demo.free_ports import free_ports
from tests.monitor.live import Prometheus, until
from tests.monitor.prometheus import needs_prometheus

ROOT = Path(__file__).parents[2]

PROGRAM = """
import pathlib, sys
import iterpo.embedded_model, iterpo.supervisor
from iterpo.cli.main import main
from iterpo.supervisor import ServiceSpec

SERVICE = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch(); sys.stdin.read()"
folder = pathlib.Path(sys.argv[1])

def specs(settings, config_path):
    markers = [folder / name for name in ("inference", "labeling", "learner")]
    return [ServiceSpec(m.name, [sys.executable, "-c", SERVICE, str(m)], m.exists) for m in markers]

iterpo.supervisor.service_specs = specs
iterpo.embedded_model.model_directory = lambda *arguments: folder
main(["up", "--config", str(folder / "iterpo.toml"), *sys.argv[2:]])
"""


def start(folder: Path, *arguments: str, more: str = "") -> subprocess.Popen[str]:
    (folder / "iterpo.toml").write_text('[learner]\nmetrics_address = ""\n' + more)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )


def test_up_says_where_everything_listens_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    with start(tmp_path, "--json") as process:
        assert process.stdout is not None
        events = []
        for line in iter(process.stdout.readline, ""):
            events.append(json.loads(line))
            if "services" in events[-1]:
                os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0
    kinds = [event.get("event") for event in events]
    assert kinds[:3] == ["started"] * 3
    assert kinds[-3:] == ["stopped"] * 3
    ready = next(event for event in events if event["event"] == "ready" and "services" in event)
    assert ready["services"][0] == {
        "service": "inference",
        "grpc": "127.0.0.1:50051",
        "http": "http://127.0.0.1:8000/v1",
        "metrics": "http://127.0.0.1:9101/metrics",
    }
    assert ready["services"][2]["metrics"] == ""


def test_a_second_up_does_not_take_the_first_one_s_services_for_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(tmp_path, more=f'[labeling]\naddress = "127.0.0.1:{port}"\n')
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"127.0.0.1:{port} already" in out
    assert "labeling.address" in out


def test_up_shows_people_a_table(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for line in iter(process.stdout.readline, ""):
            lines.append(line)
            if line.startswith("Logs: "):
                os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    shown = "".join(lines)
    assert "inference is ready" in shown
    assert "127.0.0.1:50052" in shown
    assert "learner has stopped" in shown


def test_up_with_a_broken_configuration_exits_with_two(tmp_path: Path) -> None:
    (tmp_path / "iterpo.toml").write_text("[lerner]\n")
    command = [sys.executable, "-c", "from iterpo.cli.main import main; main()", "up", "--config"]
    result = subprocess.run(
        [*command, str(tmp_path / "iterpo.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2
    assert "Did you mean `learner`?" in result.stderr


@needs_prometheus
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_with_monitor_a_real_prometheus_runs_and_ends_with_it(tmp_path: Path, ending: signal.Signals) -> None:
    (port,) = free_ports(1)
    prometheus = Prometheus(f"127.0.0.1:{port}")
    with start(tmp_path, "--json", "--monitor", more=f'[monitor]\naddress = "127.0.0.1:{port}"\n') as process:
        try:
            assert process.stdout is not None
            assert any('"services"' in line for line in iter(process.stdout.readline, ""))
            until(lambda: len(prometheus.get("/api/v1/targets")["activeTargets"]) == 2, 20)
        finally:
            os.kill(process.pid, ending)
        assert process.wait(timeout=30) == (0 if ending == signal.SIGINT else -ending)

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    until(gone, 20)
    assert "Fatal" not in (tmp_path / ".iterpo/logs/prometheus.log").read_text()


def test_monitor_without_a_prometheus_says_what_to_install(tmp_path: Path) -> None:
    with start(tmp_path, "--monitor", more='[monitor]\nprometheus = "none"\n') as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(timeout=30) == 2
    assert "apt install prometheus" in said
