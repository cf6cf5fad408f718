"""What the learner exports: one observation an iteration."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from iterpo.types import IterationRow

STEP_BUCKETS = (1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class LearnerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.iterations = Counter(
            "iterpo_learner_iterations_total", "Iterations by gate decision.", ["decision"], registry=registry
        )
        self.seconds = Histogram(
            "iterpo_learner_iteration_seconds", "A whole iteration.", buckets=STEP_BUCKETS, registry=registry
        )
        self.update = Histogram(
            "iterpo_learner_update_seconds", "The update alone.", buckets=STEP_BUCKETS, registry=registry
        )
        self.reward = Gauge("iterpo_learner_reward", "Mean reward by split.", ["run", "split"], registry=registry)
        self.kl = Gauge(
            "iterpo_learner_kl_nats", "Nats a token to the base, held-out answers.", ["run"], registry=registry
        )
        self.grad_norm = Gauge("iterpo_learner_grad_norm", "Before clipping.", ["run"], registry=registry)
        self.mismatch = Gauge(
            "iterpo_learner_mismatch_ratio",
            "Trainer/sampler ratio by quantile.",
            ["run", "quantile"],
            registry=registry,
        )
        self.outside = Gauge(
            "iterpo_learner_mismatch_outside_ratio", "Share of tokens outside [0.9, 1.1].", ["run"], registry=registry
        )
        self.dropped = Counter(
            "iterpo_learner_dropped_completions_total", "Not trained on, by reason.", ["reason"], registry=registry
        )
        self.wait = Counter(
            "iterpo_learner_wait_seconds_total",
            "The learner waited for rollouts, or for a verdict; sampling waited for the learner (backpressure).",
            ["run", "what"],
            registry=registry,
        )
        self.age = Gauge(
            "iterpo_learner_policy_age_versions",
            "Versions between sampling and use, of an iteration's groups.",
            ["run", "of"],
            registry=registry,
        )
        self.tokens = Counter("iterpo_learner_tokens_total", "Tokens trained on.", registry=registry)
        self.waiting = Gauge(
            "iterpo_learner_waiting", "1 while another process or labels are waited for.", ["run"], registry=registry
        )

    def observe(self, row: IterationRow) -> None:
        decision = "promoted" if row.promoted else "refused" if row.decision else "no_update"
        self.iterations.labels(decision).inc()
        self.seconds.observe(row.seconds)
        for split, value in (("train", row.train_reward), ("heldout", row.heldout_reward)):
            if not math.isnan(value):
                self.reward.labels(row.run_id, split).set(value)
        self.kl.labels(row.run_id).set(row.kl)
        for name, value in row.metrics.items():
            if name.startswith("dropped_"):
                self.dropped.labels(name.removeprefix("dropped_")).inc(value)
            elif name.startswith("wait_"):
                self.wait.labels(row.run_id, name.removeprefix("wait_").removesuffix("_seconds")).inc(value)
            elif name.startswith("policy_age_"):
                self.age.labels(row.run_id, name.removeprefix("policy_age_")).set(value)
            elif name.startswith("mismatch_p"):
                self.mismatch.labels(row.run_id, name.removeprefix("mismatch_p")).set(value)
        if "learner_seconds" in row.metrics:
            self.update.observe(row.metrics["learner_seconds"])
            self.grad_norm.labels(row.run_id).set(row.metrics["grad_norm"])
            self.outside.labels(row.run_id).set(row.metrics["mismatch_outside"])
            self.tokens.inc(row.metrics["tokens"])
