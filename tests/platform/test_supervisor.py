"""The supervisor, over tiny processes: it restarts what dies, gives up in words, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iterpo.config import load
from iterpo.errors import InvalidConfig, IterpoError, Unavailable
from iterpo.supervisor import Event, ServiceSpec, Supervisor, service_specs

WAIT_SECONDS = 20.0

STEADY = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch(); sys.stdin.read()"
"""Ready at once; ends when its standard input closes."""
SHORT = "import sys; print('the reason', flush=True); sys.exit(int(sys.argv[2]))"
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def spec(directory: Path, name: str, program: str, *arguments: str) -> ServiceSpec:
    """A service that is ready once it has written the file of its name."""
    marker = directory / name
    return ServiceSpec(name, [sys.executable, "-c", program, str(marker), *arguments], marker.exists)


def supervise(directory: Path, *specs: ServiceSpec, events: list[Event] | None = None) -> Supervisor:
    config = directory / "iterpo.toml"
    config.write_text("")
    return Supervisor(config, (events if events is not None else []).append, specs)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def pid_or_zero(supervisor: Supervisor, name: str) -> int:
    try:
        return supervisor.pid(name)
    except Unavailable:
        return 0


def failure(supervisor: Supervisor) -> IterpoError:
    with pytest.raises(IterpoError) as caught:
        supervisor.wait_ready(WAIT_SECONDS)
    return caught.value


def test_services_start_become_ready_and_stop(tmp_path: Path) -> None:
    events: list[Event] = []
    with supervise(tmp_path, spec(tmp_path, "a", STEADY), spec(tmp_path, "b", STEADY), events=events) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        pids = [supervisor.pid("a"), supervisor.pid("b")]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
    assert [(e.service, e.kind) for e in events if e.kind in ("started", "stopped")] == [
        ("a", "started"),
        ("b", "started"),
        ("a", "stopped"),
        ("b", "stopped"),
    ]


def test_a_killed_service_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    events: list[Event] = []
    with supervise(tmp_path, spec(tmp_path, "a", STEADY), spec(tmp_path, "b", STEADY), events=events) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        first, other = supervisor.pid("a"), supervisor.pid("b")
        os.kill(first, signal.SIGKILL)
        until(lambda: pid_or_zero(supervisor, "a") not in (0, first))
        supervisor.wait_ready(WAIT_SECONDS)
        supervisor.poll()
        assert supervisor.pid("b") == other
    assert [e.kind for e in events if e.service == "a"][:6] == [
        "started",
        "ready",
        "died",
        "restarting",
        "started",
        "ready",
    ]


def test_a_service_that_keeps_dying_is_given_up_and_the_others_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iterpo.supervisor.MAX_RESTARTS", 2)
    events: list[Event] = []
    specs = spec(tmp_path, "a", SHORT, "1"), spec(tmp_path, "b", STEADY)
    with supervise(tmp_path, *specs, events=events) as supervisor:
        error = failure(supervisor)
        assert error.reason == "SERVICE_FAILED"
        assert "died 3 times" in error.message
        assert str(supervisor.log_path("a")) in error.fix
        assert [e.kind for e in events if e.service == "a"].count("started") == 3
        with pytest.raises(Unavailable):
            supervisor.pid("b")
        with pytest.raises(IterpoError, match="died 3 times"):
            supervisor.poll()


def test_a_configuration_error_is_not_tried_again_and_its_sentence_is_shown(tmp_path: Path) -> None:
    events: list[Event] = []
    with supervise(tmp_path, spec(tmp_path, "a", SHORT, "2"), events=events) as supervisor:
        assert "the reason" in failure(supervisor).message
    assert [e.kind for e in events] == ["started", "died", "gave_up"]


def test_a_service_that_is_never_ready_is_named_after_the_timeout(tmp_path: Path) -> None:
    never = ServiceSpec("slow", [sys.executable, "-c", STEADY, str(tmp_path / "x")], lambda: False)
    with supervise(tmp_path, never) as supervisor, pytest.raises(Unavailable, match="slow"):
        supervisor.wait_ready(0.5)


def test_a_service_that_ignores_sigterm_is_killed_with_everything_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iterpo.supervisor.STOP_SECONDS", 0.5)
    with supervise(tmp_path, spec(tmp_path, "a", STUBBORN)) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        service, grandchild = supervisor.pid("a"), int((tmp_path / "a").read_text())
        assert alive(grandchild)
    assert not alive(service)
    until(lambda: not alive(grandchild))


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/logs/a.log"), ZeroDivisionError("bug")])
def test_whatever_ends_the_watching_is_told_and_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_child: object) -> None:
        raise error

    with supervise(tmp_path, spec(tmp_path, "a", STEADY), spec(tmp_path, "b", STEADY)) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        other = supervisor.pid("b")
        monkeypatch.setattr(supervisor, "_spawn", refuse)
        os.kill(supervisor.pid("a"), signal.SIGKILL)
        until(lambda: supervisor._failure is not None)
        with pytest.raises(IterpoError, match=r"/logs/a\.log|ZeroDivisionError: bug") as caught:
            supervisor.poll()
        assert caught.value.fix
        assert not alive(other)


def test_stopping_twice_is_the_same_as_once(tmp_path: Path) -> None:
    supervisor = supervise(tmp_path, spec(tmp_path, "a", STEADY))
    supervisor.start()
    process = supervisor.pid("a")
    supervisor.stop()
    supervisor.stop()
    assert not alive(process)


PARENT = """
import pathlib, sys, time
from iterpo.supervisor import ServiceSpec, Supervisor
sys.path.insert(0, sys.argv[1])
marker = pathlib.Path(sys.argv[2])
spec = ServiceSpec("a", [sys.executable, sys.argv[3], str(marker)], marker.exists)
supervisor = Supervisor(pathlib.Path(sys.argv[4]), print, [spec])
supervisor.start()
supervisor.wait_ready(20)
print("pid", supervisor.pid("a"), flush=True)
time.sleep(600)
"""
SERVICE = """
import asyncio, pathlib, sys
from prometheus_client import CollectorRegistry
from services.host import Host, ServerSettings, run_service

async def serve():
    host = Host("labeling", ServerSettings(), CollectorRegistry())
    host.bind()
    async def prepare():
        pathlib.Path(sys.argv[1]).touch()
    await host.run(["iterpo.v1.LabelingService"], prepare=prepare)

sys.exit(run_service(serve))
"""


def test_services_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    (tmp_path / "iterpo.toml").write_text("")
    (tmp_path / "service.py").write_text(SERVICE)
    arguments = [root, str(tmp_path / "ready"), str(tmp_path / "service.py"), str(tmp_path / "iterpo.toml")]
    command = [sys.executable, "-c", PARENT, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root}) as parent:
        assert parent.stdout is not None
        lines = iter(parent.stdout.readline, "")
        service = next(int(line.split()[1]) for line in lines if line.startswith("pid "))
        assert alive(service)
        parent.kill()
        parent.wait(timeout=WAIT_SECONDS)
    until(lambda: not alive(service))


def test_a_service_on_port_zero_cannot_be_supervised(tmp_path: Path) -> None:
    config = tmp_path / "iterpo.toml"
    config.write_text('[labeling]\naddress = "127.0.0.1:0"\n')
    with pytest.raises(InvalidConfig, match=r"labeling\.address"):
        service_specs(load(config), config)


def test_the_three_services_get_the_configuration_they_are_run_with(tmp_path: Path) -> None:
    config = tmp_path / "iterpo.toml"
    config.write_text('[inference]\naddress = "127.0.0.1:1"\n')
    specs = service_specs(load(config), config)
    assert [s.name for s in specs] == ["inference", "labeling", "learner"]
    assert list(specs[0].command)[1:] == ["-m", "services.inference", "--config", str(config)]
    assert not specs[0].is_ready()
