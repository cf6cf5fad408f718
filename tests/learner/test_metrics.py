"""What an iteration's row becomes for Prometheus."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry

from iterpo.types import GateDecision, IterationRow
from services.learner.metrics import LearnerMetrics


def row(**metrics: float) -> IterationRow:
    return IterationRow("r", 1, 1, True, True, 0.5, 0.5, 0.1, 1.0, 1.0, 100.0, 10.0, metrics, None)


def test_both_waits_are_added_up_and_the_age_is_the_last_iterations() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    for rollouts, backpressure, age in ((2.0, 0.5, 1.0), (3.0, 0.0, 2.0)):
        metrics.observe(
            row(
                wait_rollouts_seconds=rollouts,
                wait_backpressure_seconds=backpressure,
                policy_age_mean=age / 2,
                policy_age_max=age,
            )
        )
    waited, age = "iterpo_learner_wait_seconds_total", "iterpo_learner_policy_age_versions"
    assert registry.get_sample_value(waited, {"run": "r", "what": "rollouts"}) == 5.0
    assert registry.get_sample_value(waited, {"run": "r", "what": "backpressure"}) == 0.5
    assert registry.get_sample_value(age, {"run": "r", "of": "max"}) == 2.0
    assert registry.get_sample_value(age, {"run": "r", "of": "mean"}) == 1.0


def test_the_parts_of_an_iteration_are_observed_where_they_took_place() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    metrics.observe(replace(row(), metrics={"sampling_seconds": 3.0, "judging_seconds": 2.0}))
    metrics.observe(replace(row(), metrics={"sampling_seconds": 4.0}))
    sums = [registry.get_sample_value(f"iterpo_learner_{part}_seconds_sum") for part in ("sampling", "judging")]
    assert sums == [7.0, 2.0]
    assert registry.get_sample_value("iterpo_learner_judging_seconds_count") == 1


def test_an_iteration_without_a_candidate_measured_no_kl_and_says_none() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    metrics.observe(replace(row(), kl=1.9))
    metrics.observe(replace(row(), proved=False, promoted=False, kl=0.0))
    assert registry.get_sample_value("iterpo_learner_kl_nats", {"run": "r"}) == 1.9


def test_what_became_of_an_iteration_is_counted_and_a_replays_are_no_missing_updates() -> None:
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    updated = {"learner_seconds": 1.0, "tokens": 8.0, "completions": 2.0}
    nothing = replace(row(), proved=False, promoted=False)
    for each in (row(), replace(nothing, decision=GateDecision(False, ("kl",), {})), nothing):
        metrics.observe(each)
    metrics.observe(replace(nothing, metrics=updated))
    counted = [
        registry.get_sample_value("iterpo_learner_iterations_total", {"decision": decision})
        for decision in ("promoted", "refused", "no_update", "replayed")
    ]
    assert counted == [1.0, 1.0, 1.0, 1.0]
