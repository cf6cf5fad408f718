"""The drills' own parts that need no services: shortened rules, and the alerts that they name."""

from __future__ import annotations

import re

import pytest

from benchmarks.drill import shortened
from benchmarks.overhead import median_interval
from benchmarks.sabotage import DRILLS
from iterpo.monitor.prometheus import RULES
from tests.monitor.prometheus import needs_prometheus, promtool
from tests.platform.test_docs import ROOT


def test_windows_offsets_and_patience_are_shortened_and_numbers_are_left_alone() -> None:
    rule = "expr: rate(x[15m] offset 1h) > 1800\nfor: 30m\n"
    assert shortened(rule, 15) == "expr: rate(x[60s] offset 240s) > 1800\nfor: 120s\n"


def test_nothing_is_shortened_below_half_a_minute_and_what_was_shorter_stays() -> None:
    assert shortened("x[2m] y[10s]\nfor: 5s\n", 60) == "x[30s] y[10s]\nfor: 5s\n"


@needs_prometheus
@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_a_drills_rules_are_rules_and_its_alerts_are_of_its_family(drill, tmp_path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(shortened(RULES.read_text(), drill.faster))
    promtool("check", "rules", str(path))
    families = dict(re.findall(r"alert: (\w+)\n.*?family: (\w+)", path.read_text(), re.DOTALL))
    assert {families[alert] for alert in drill.alerts} == {drill.family}


def test_every_drill_is_in_the_documentation_with_its_picture_and_every_one_there_exists() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/drills.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(drill.name for drill in DRILLS)
    assert all((ROOT / f"docs/screenshots/drill-{name}.png").is_file() for name in told)


@pytest.mark.parametrize(("count", "places"), [(5, (0, 4)), (10, (1, 8)), (20, (5, 14))])
def test_a_medians_interval_is_that_of_the_sign_test(count: int, places: tuple[int, int]) -> None:
    """Conover, Practical Nonparametric Statistics, table A3: ranks 2 and 9 of 10, 6 and 15 of 20."""
    assert median_interval(count) == places
