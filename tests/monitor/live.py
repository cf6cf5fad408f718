"""A real Prometheus, and what is asked of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iterpo.monitor.dashboards import DASHBOARDS, Panel

READY_SECONDS = 60.0


class Prometheus:
    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self._address}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def page(self, name: str) -> str:
        """The address of its page; Debian's Prometheus has an older set of them."""
        for path in (f"/classic/{name}", f"/{name}"):
            try:
                urllib.request.urlopen(f"http://{self._address}{path}", timeout=10).close()
                return f"http://{self._address}{path}"
            except urllib.error.HTTPError:
                continue
        raise AssertionError(f"Prometheus has no page `{name}`")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Its samples now. HTTPError 400 for what is no PromQL."""
        return self.get("/api/v1/query", query=expression)["result"]

    def fired(self) -> set[str]:
        """Within the last hour, if only for a moment."""
        found = self.query('max_over_time(ALERTS{alertstate="firing"}[1h])')
        return {alert["metric"]["alertname"] for alert in found}

    def firing(self) -> set[str]:
        return {alert["metric"]["alertname"] for alert in self.query('ALERTS{alertstate="firing"}')}


@contextmanager
def running_prometheus(config_path: Path, address: str) -> Iterator[Prometheus]:
    """`python -m iterpo.monitor` on iterpo.toml, whose monitor.address is `address`."""
    process = subprocess.Popen([sys.executable, "-m", "iterpo.monitor", "--config", str(config_path)])
    try:
        prometheus = Prometheus(address)
        until(lambda: bool(prometheus.get("/api/v1/status/runtimeinfo")), READY_SECONDS)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except OSError:
            pass  # not there yet
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.25)


def expressions(panel: Panel) -> list[str]:
    """As Grafana would ask them: every run, and four scrapes as the window of a rate."""
    return [expression.replace("$__rate_interval", "20s").replace("$run", ".*") for expression, _ in panel.lines]


PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
