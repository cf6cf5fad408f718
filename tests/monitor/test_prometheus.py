"""A real Prometheus reads our metrics, our rules and every panel of the dashboards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from iterpo.config import load
from iterpo.demo.free_ports import free_ports
from iterpo.errors import InvalidConfig, NotFound
from iterpo.monitor import dashboards, prometheus
from services.instruments import Instruments
from services.metrics_endpoint import MetricsEndpoint
from tests.monitor.live import PANELS, Prometheus, expressions, running_prometheus, until
from tests.monitor.prometheus import needs_prometheus, promtool
from tests.platform.test_docs import GENERATOR, ROOT


def settings(folder: Path, text: str = ""):
    path = folder / "iterpo.toml"
    path.write_text(text)
    return load(path)


def test_the_configuration_names_every_service_that_has_metrics(tmp_path: Path) -> None:
    made = prometheus.configuration(settings(tmp_path, '[learner]\nmetrics_address = ""\n'))
    [job] = made["scrape_configs"]
    assert [c["labels"]["service"] for c in job["static_configs"]] == ["inference", "labeling"]
    assert "scheme" not in job


def test_a_prometheus_that_others_could_reach_is_refused_as_it_asks_for_no_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="asks for no token") as refused:
        prometheus.spec(settings(tmp_path, '[monitor]\naddress = "0.0.0.0:9090"\n'), None)
    assert refused.value.reason == "INSECURE_ADDRESS"


def test_with_tls_the_services_are_read_through_it(tmp_path: Path) -> None:
    tls = '[auth]\ntls_certificate = "server.pem"\ntls_key = "key.pem"\n'
    [job] = prometheus.configuration(settings(tmp_path, tls))["scrape_configs"]
    assert job["scheme"] == "https"
    assert job["tls_config"] == {"ca_file": str(tmp_path / "server.pem")}


def test_nothing_to_watch_is_said(tmp_path: Path) -> None:
    none = "".join(f'[{name}]\nmetrics_address = ""\n' for name in ("inference", "labeling", "learner"))
    with pytest.raises(InvalidConfig, match="metrics_address") as nothing:
        prometheus.configuration(settings(tmp_path, none))
    assert nothing.value.reason == "NO_METRICS"


def test_a_prometheus_that_is_not_there_is_said_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="apt install prometheus") as missing:
        prometheus.find_binary(settings(tmp_path, '[monitor]\nprometheus = "nowhere/prometheus"\n'))
    assert missing.value.reason == "PROMETHEUS_MISSING"
    assert str(tmp_path / "nowhere") in str(missing.value)


def test_the_file_for_a_prometheus_of_ones_own_says_the_same(tmp_path: Path) -> None:
    import yaml

    written = yaml.safe_load((prometheus.HERE / "prometheus.yml").read_text())
    assert written == prometheus.configuration(settings(tmp_path), Path("rules.yml"))


@needs_prometheus
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    prometheus.command(settings(tmp_path, 'data_dir = "."\n'))
    assert promtool("check", "config", str(tmp_path / "monitor" / "prometheus.yml")) == ""


def test_the_dashboards_are_those_of_the_table() -> None:
    for dashboard in dashboards.DASHBOARDS:
        file = dashboards.FOLDER / f"{dashboard.name.lower()}.json"
        assert file.read_text() == dashboards.as_json(dashboard), "run: python -m iterpo.monitor.dashboards"
        body = json.loads(file.read_text())
        assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in body["panels"]}) == len(dashboard.panels)


def test_everything_for_operators_is_found_under_deploy() -> None:
    for name in ("rules.yml", "prometheus.yml", "grafana/dashboards/overview.json", "grafana/provisioning"):
        assert (ROOT / "deploy/monitor" / name).exists()


METRICS = [m for metrics in GENERATOR.all_metrics().values() for m in metrics if not m.name.startswith("process_")]
VALUES = {
    "grpc_code": "INTERNAL",
    "what": "rollouts",
    "presented_outcome": "first",
    "ratio": "outside",
    "role": "serving",
    "state": "open",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Iterator[Prometheus]:
    """Every metric with one series, grown by one between scrapes, as if one service had them all."""
    folder = tmp_path_factory.mktemp("prometheus")
    registry = CollectorRegistry()
    made, grown = Instruments(registry), []
    for m in METRICS:
        extra = ([0.1, 1, 10],) if m.kind == "histogram" else ()
        metric = getattr(made, m.kind)(m.name, m.meaning, m.when_off, *extra, labels=m.labels)
        child = metric.labels(*(VALUES.get(label, "x") for label in m.labels)) if m.labels else metric
        grown.append(child.observe if m.kind == "histogram" else child.inc)
    endpoint = MetricsEndpoint(registry)
    metrics_port = endpoint.start("127.0.0.1:0")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    others = "".join(f'[{name}]\nmetrics_address = ""\n' for name in ("inference", "labeling"))
    services = f'{others}[learner]\nmetrics_address = "127.0.0.1:{metrics_port}"\n'
    config = folder / "iterpo.toml"
    config.write_text(f'data_dir = "."\n[monitor]\naddress = "{address}"\n{services}')

    def grow() -> bool:
        for one in grown:
            one(1)
        read = prometheus.query("count_over_time(iterpo_learner_tokens_total[1m])")
        return bool(read) and float(read[0]["value"][1]) >= 3

    with running_prometheus(config, address) as prometheus:
        until(grow, 60)
        yield prometheus
    endpoint.stop()


@needs_prometheus
@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p.title)
def test_every_panel_shows_something(live: Prometheus, panel) -> None:
    for expression in expressions(panel):
        if "ALERTS" not in expression:  # there is none yet
            assert live.query(expression), expression


@needs_prometheus
def test_it_has_read_our_rules_and_finds_them_healthy(live: Prometheus) -> None:
    rules = [rule for group in live.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert sorted(r["name"] for r in rules) == sorted(re.findall(r"- alert: (\w+)", prometheus.RULES.read_text()))
    assert {r["name"]: r["lastError"] for r in rules if r["health"] == "err"} == {}


def test_panels_look_at_metrics_that_exist() -> None:
    known = {m.name for metrics in GENERATOR.all_metrics().values() for m in metrics}
    asked = {
        name
        for panel in PANELS
        for e in expressions(panel)
        for name in re.findall(r"\b(?:iterpo|grpc_server|process)_\w+", e)
    }
    assert {re.sub("_bucket$", "", name) for name in asked} <= known
