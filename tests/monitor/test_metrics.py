"""Names, units, meanings and bounds of what Prometheus is shown."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from iterpo.types import IterationRow
from services.instruments import Instruments, watch_disk
from services.labeling.metrics import LabelingMetrics
from services.learner.metrics import SHOWN_RUNS, LearnerMetrics
from tests.monitor.prometheus import needs_prometheus, promtool
from tests.platform.test_docs import GENERATOR

DESCRIBED = [m for metrics in GENERATOR.all_metrics().values() for m in metrics]


def iteration(run: str, number: int = 1, **metrics: float) -> IterationRow:
    return IterationRow(run, number, 1, True, True, 0.5, 0.5, 0.1, 1.0, 1.0, 100.0, 10.0, metrics, None)


@pytest.mark.parametrize("metric", DESCRIBED, ids=lambda m: m.name)
def test_every_metric_says_what_it_means_and_what_to_do(metric) -> None:
    assert metric.meaning.endswith(".")
    assert metric.when_off.endswith((".", ")"))
    assert len(metric.labels) <= 4


def test_no_name_stands_twice() -> None:
    names = [m.name for m in DESCRIBED]
    assert sorted(names) == sorted(set(names))


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_names_and_units() -> None:
    shown = "".join(f"# HELP {m.name} {m.meaning}\n# TYPE {m.name} {m.kind}\n" + _sample(m) for m in DESCRIBED)
    assert promtool("check", "metrics", text=shown) == ""
    assert "counter metrics should have" in promtool("check", "metrics", text=shown.replace("rewards_total", "rewards"))


def _sample(metric) -> str:
    labels = ",".join(f'{name}="x"' for name in metric.labels)
    if metric.kind != "histogram":
        return f"{metric.name}{{{labels}}} 1\n"
    bucket = f'{metric.name}_bucket{{{labels}{"," if labels else ""}le="+Inf"}} 1\n'
    return bucket + f"{metric.name}_sum{{{labels}}} 1\n{metric.name}_count{{{labels}}} 1\n"


def test_a_registry_shows_what_was_described_and_nothing_else() -> None:
    registry = CollectorRegistry()
    made = LearnerMetrics(registry).made
    text = generate_latest(registry).decode()
    shown = {m[1] for m in re.finditer(r"^# TYPE (\S+)", text, re.MULTILINE)} - {""}
    assert {name for name in shown if not name.endswith("_created")} == {m.name for m in made.described}


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("iterpo_learner_wait_seconds_total", "seconds"),
        ("iterpo_learner_tokens_total", "tokens"),
        ("iterpo_learner_kl_nats", "nats"),
        ("iterpo_labeling_labels_total", ""),
    ],
)
def test_a_unit_is_the_last_word_of_a_name(name: str, unit: str) -> None:
    made = Instruments(CollectorRegistry())
    made.collected("gauge", name, "", "")
    assert made.described[0].unit == unit


def test_series_do_not_grow_with_the_number_of_runs() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    for number in range(3 * SHOWN_RUNS):
        metrics.begin(f"run-{number}", 0)
        metrics.observe(iteration(f"run-{number}", wait_rollouts_seconds=1.0))
        metrics.end(f"run-{number}", "FINISHED")
    runs = {
        sample.labels["run"]
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if "run" in sample.labels
    }
    assert runs == {f"run-{number}" for number in range(2 * SHOWN_RUNS, 3 * SHOWN_RUNS)}


def test_a_run_that_goes_on_keeps_its_numbers_however_many_come_and_go() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    metrics.begin("long")
    for number in range(3 * SHOWN_RUNS):
        metrics.begin(f"run-{number}")
        metrics.end(f"run-{number}", "FINISHED")
    assert registry.get_sample_value("iterpo_learner_active", {"run": "long"}) == 1
    assert registry.get_sample_value("iterpo_learner_active", {"run": "run-0"}) is None


def test_a_disk_is_full_when_df_says_so(tmp_path, monkeypatch) -> None:
    """Of 252 GB 83 are used and 19 free, the rest is kept back: 19/102 are left, not 19/252, which would alarm."""
    monkeypatch.setattr("psutil.disk_usage", lambda _: SimpleNamespace(total=252, used=83, free=19))
    registry = CollectorRegistry()
    watch_disk(Instruments(registry), tmp_path)
    free, size = (registry.get_sample_value(f"iterpo_disk_{what}_bytes") for what in ("free", "size"))
    assert (free, size) == (19, 102)


def test_what_nobody_knows_yet_is_no_zero() -> None:
    """A gold accuracy of 0 fired its alert on every service without people."""
    registry = CollectorRegistry()
    LabelingMetrics(registry)
    for name in ("gold_accuracy_ratio", "agreement_alpha"):
        value = registry.get_sample_value(f"iterpo_labeling_{name}")
        assert value is not None
        assert math.isnan(value)


def test_a_counter_that_an_alert_looks_at_is_seen_at_zero_first() -> None:
    """`increase` of a series whose first sample is 1 is 0: the first failure would be missed."""
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    assert registry.get_sample_value("iterpo_learner_runs_ended_total", {"state": "failed"}) == 0
    metrics.begin("r", 0)
    metrics.end("r", "FAILED")
    assert registry.get_sample_value("iterpo_learner_runs_ended_total", {"state": "failed"}) == 1
    assert registry.get_sample_value("iterpo_learner_active", {"run": "r"}) == 0
