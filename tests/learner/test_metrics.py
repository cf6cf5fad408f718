"""What an iteration's row becomes for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from iterpo.types import IterationRow
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
