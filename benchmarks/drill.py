"""`python -m benchmarks.drill` (`make drill`): break one thing after the other, and see the right alert fire, alone.

Each drill starts the three real services, a real Prometheus and a run; waits until an iteration or two went well and
nothing has fired; breaks one thing (benchmarks/sabotage.py); and watches until its alert fires and AFTER_SECONDS
longer. It has passed when that alert fired within its window and no alert of another family did, at any time. Pictures
of Prometheus' own page go to docs/screenshots, figures to benchmarks/results. Exits with 1 when a drill failed.

Windows are the rules' own, but for drills that say `faster`: there every window of every rule is that many times
shorter, though not shorter than LEAST_SECONDS. 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware_key, versions
from benchmarks.sabotage import DRILLS, Drill, Stack
from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.demo.free_ports import free_ports
from iterpo.embedded_model import prepare
from iterpo.monitor import prometheus
from iterpo.supervisor import Supervisor
from tests.monitor.live import Prometheus, until
from tests.page.browser import chromium

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "screenshots"
START_SECONDS, HEALTHY_SECONDS, AFTER_SECONDS = 300.0, 300.0, 30.0
LEAST_SECONDS = 30
"""Of a shortened window: six scrapes."""
SECONDS_OF = {"s": 1, "m": 60, "h": 3600}
WINDOW = re.compile(r"(?<=\[)\d+[smh](?=\])|(?<=offset )\d+[smh]\b|(?<=for: )\d+[smh]\b")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the pictures")
    names = [drill.name for drill in DRILLS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these; others stay as found")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    path = arguments.out / f"drill-{hardware_key()}.json"
    found = json.loads(path.read_text())["drills"] if path.exists() else {}
    for drill in (drill for drill in DRILLS if drill.name in arguments.only):
        print(f"{drill.name}: {drill.does}", flush=True)
        found[drill.name] = outcome = run(drill, base, arguments.pictures)
        print(json.dumps(outcome, indent=1), flush=True)
        whole = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions(), "drills": found}
        path.write_text(json.dumps(whole, indent=1) + "\n")
    failed = [name for name in arguments.only if not found[name]["passed"]]
    print(f"{len(arguments.only) - len(failed)} of {len(arguments.only)} drills passed; written to {path}")
    return 1 if failed else 0


def run(drill: Drill, base: Path, pictures: Path) -> dict[str, Any]:
    with running(drill, base) as (stack, watching):
        drill.prepare(stack)
        until(lambda: drill.is_healthy(stack), HEALTHY_SECONDS)
        before = sorted(watching.fired())
        with drill.sabotage(stack):
            fired = watch(drill, watching)
            picture(watching, pictures / f"drill-{drill.name}.png")
        families = {family for family, _ in fired.values()}
        after = min((seconds for name, (_, seconds) in fired.items() if name in drill.alerts), default=None)
        return {
            "does": drill.does,
            "fired": {name: round(seconds, 1) for name, (_, seconds) in fired.items()},
            "families": sorted(families),
            "window_seconds": drill.window,
            "faster": drill.faster,
            "fired_before": before,
            "passed": not before and families == {drill.family} and after is not None and after <= drill.window,
        }


def watch(drill: Drill, watching: Prometheus) -> dict[str, tuple[str, float]]:
    """Alert -> (its family, seconds from the sabotage until it fired), of all that fired."""
    fired: dict[str, tuple[str, float]] = {}
    began, last = time.monotonic(), drill.window
    while (passed := time.monotonic() - began) < last:
        for alert in watching.query('ALERTS{alertstate="firing"}'):
            name, family = alert["metric"]["alertname"], alert["metric"]["family"]
            if name not in fired:
                fired[name] = (family, passed)
                print(f"  {name} ({family}) after {passed:.0f} s", flush=True)
                last = min(last, passed + AFTER_SECONDS) if name in drill.alerts else last
        time.sleep(1.0)
    return fired


@contextmanager
def running(drill: Drill, base: Path) -> Iterator[tuple[Stack, Prometheus]]:
    """The services and a Prometheus, in a folder of the drill's own."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    with ExitStack() as on_leaving:
        folder = Path(on_leaving.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        home = on_leaving.enter_context(drill.disk(folder / "home"))
        config_path = write_settings(home, base)
        text = config_path.read_text() + f'\n[monitor]\naddress = "{address}"\n'
        for section, lines in drill.settings().items():
            head = f"[{section}]\n"
            text = text.replace(head, f"{head}{lines}\n") if head in text else f"{text}\n{head}{lines}\n"
        config_path.write_text(text)
        settings = load(config_path)
        services = on_leaving.enter_context(Supervisor(config_path))
        services.wait_ready(START_SECONDS)
        watching = on_leaving.enter_context(reading(folder, config_path, address, drill.faster))
        until(lambda: bool(watching.query('sum(up{job="iterpo"}) == 3')), 60)
        yield Stack(settings, services, home), watching


@contextmanager
def reading(folder: Path, config_path: Path, address: str, faster: float) -> Iterator[Prometheus]:
    """A Prometheus with the rules `faster` times as fast."""
    (folder / "rules.yml").write_text(shortened(prometheus.RULES.read_text(), faster))
    settings = load(config_path)
    configuration = prometheus.configuration(settings, Path("rules.yml"))
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = [
        str(prometheus.find_binary(settings)),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        found = Prometheus(address)
        until(lambda: bool(found.get("/api/v1/status/runtimeinfo")), 60)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def shortened(rules: str, faster: float) -> str:
    """Every window, offset and `for` of the rules, `faster` times shorter; none below LEAST_SECONDS but those that
    were."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[0][:-1]) * SECONDS_OF[found[0][-1]]
        return f"{max(round(seconds / faster), min(seconds, LEAST_SECONDS))}s"

    return WINDOW.sub(shorter, rules) if faster != 1 else rules


def picture(watching: Prometheus, path: Path) -> None:
    """Prometheus' page of alerts, those that fire, with what they say."""
    from playwright.sync_api import TimeoutError as NotThere

    path.parent.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 760})
        page.goto(watching.page("alerts"))
        for hidden in ("#inactiveAlerts", "#pendingAlerts"):
            with suppress(NotThere):  # Debian's page has these switches; another one shows what it shows
                page.locator(f"label:has({hidden})").click(timeout=2000)
        with suppress(NotThere):
            page.locator("button.show-annotations").click(timeout=2000)
            page.locator(".alert-danger.alert_header").first.click(timeout=2000)
        page.wait_for_timeout(500)
        page.screenshot(path=path)


if __name__ == "__main__":
    sys.exit(main())
