"""What the learner exports: one observation an iteration. Numbers of a run carry its name, the latest runs' only."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from prometheus_client import CollectorRegistry, Gauge

from iterpo.types import IterationRow
from services.instruments import Instruments

STEP_BUCKETS = (1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
LAG_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
SHOWN_RUNS = 16
"""Of the latest runs numbers are shown; labels must not grow with the number of runs that ever were."""
ENDED = ("finished", "stopped", "failed")
DECISIONS = ("promoted", "refused", "replayed", "no_update")


class LearnerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        made = self.made = Instruments(registry)
        self._runs: OrderedDict[str, bool] = OrderedDict()
        """Run -> whether it is active; the latest to begin comes last."""
        self._of_runs: list[Gauge] = []

        def of_run(name: str, meaning: str, when_off: str, *more: str) -> Gauge:
            self._of_runs.append(made.gauge(name, meaning, when_off, ("run", *more)))
            return self._of_runs[-1]

        self.iterations = made.counter(
            "iterpo_learner_iterations_total",
            "Iterations by gate decision.",
            "Many refused: look at the reasons (iterpo run status NAME --json) and lower the learning rate. Many "
            "no_update: every group has one reward; take harder or easier prompts.",
            ["decision"],
        )
        self.ended = made.counter(
            "iterpo_learner_runs_ended_total",
            "Runs that ended, by how.",
            "Failed: iterpo run status says why; mend it, then iterpo run resume.",
            ["state"],
        )
        self.seconds = made.histogram(
            "iterpo_learner_iteration_seconds",
            "A whole iteration.",
            "Growing: compare with sampling, the update, judging and the waits, to see which part.",
            STEP_BUCKETS,
        )
        self.sampling = made.histogram(
            "iterpo_learner_sampling_seconds",
            "Sampling answers since the iteration before, by as many calls as it took.",
            "Growing: longer answers, or users who keep the engine busy; more replicas.",
            STEP_BUCKETS,
        )
        self.judging = made.histogram(
            "iterpo_learner_judging_seconds",
            "Judging a candidate: held-out answers, their rewards, the KL to the base; with run.ahead, also its wait "
            "for the learner.",
            "Growing: longer answers, or a slow judge; fewer held-out prompts.",
            STEP_BUCKETS,
        )
        self.update = made.histogram(
            "iterpo_learner_update_seconds",
            "The update alone.",
            "Growing: longer answers, or another process on the same cores.",
            STEP_BUCKETS,
        )
        self.lag = made.histogram(
            "iterpo_learner_label_to_served_seconds",
            "From the feedback until a policy that learned from it serves: the mean of each promoted iteration.",
            "Growing: smaller iterations, more annotators, or run.ahead.",
            LAG_BUCKETS,
        )
        self.active = of_run(
            "iterpo_learner_active",
            "1 while the run works or waits, 0 after its end.",
            "0 too soon: iterpo run status says why.",
        )
        self.waiting = of_run(
            "iterpo_learner_waiting",
            "1 while another process or labels are waited for.",
            "Long 1: iterpo run status says for what.",
        )
        self.paused = of_run(
            "iterpo_learner_paused",
            "1 while the run is paused.",
            "Forgotten: iterpo run resume.",
        )
        self.progressed = of_run(
            "iterpo_learner_last_iteration_timestamp_seconds",
            "When the latest iteration was committed, or the run begun.",
            "Long ago while active: the learner's log; then iterpo run stop and resume.",
        )
        self.iteration = of_run("iterpo_learner_iteration", "The latest iteration's number.", "It should grow.")
        self.ahead = of_run("iterpo_learner_ahead", "run.ahead.", "Zero: sampling and learning take turns.")
        self.reward = of_run(
            "iterpo_learner_reward",
            "Mean reward by split; a candidate's on held-out prompts.",
            "Train up and heldout down: the reward is being gamed or prompts are learned by heart. Stop, read answers, "
            "roll back.",
            "split",
        )
        self.kl = of_run(
            "iterpo_learner_kl_nats",
            "Nats a token to the base, on held-out answers.",
            "Growing fast: lower the learning rate, raise kl.beta, lower gate.max_kl.",
        )
        self.kl_limit = of_run(
            "iterpo_learner_kl_limit_nats", "gate.max_kl of the run.", "Candidates beyond it are refused."
        )
        self.length = of_run(
            "iterpo_learner_completion_tokens",
            "Mean length of answers by split.",
            "Running away: a normalizer without length bias (constant), or a length rule in the reward.",
            "split",
        )
        self.entropy = of_run(
            "iterpo_learner_entropy_nats",
            "Estimate of the sampling policy's entropy: the mean of -log-prob over sampled tokens.",
            "Towards 0: exploration ends; raise run.entropy or clip_high, lower the learning rate.",
        )
        self.margin = of_run(
            "iterpo_learner_margin_nats",
            "Of methods of pairs: mean implicit reward of chosen over rejected.",
            "Falling below 0: pairs contradict what was learned; look at agreement.",
        )
        self.clipped = of_run(
            "iterpo_learner_clipped_ratio",
            "Share of tokens whose importance ratio was clipped.",
            "Above a fifth: fewer steps an iteration, or a lower learning rate.",
        )
        self.grad_norm = of_run(
            "iterpo_learner_grad_norm",
            "Of the gradient, before clipping.",
            "Twenty times its usual value: look at the batch; lower the learning rate.",
        )
        self.not_finite = made.counter(
            "iterpo_learner_updates_not_finite_total",
            "Updates whose gradient was no finite number: no step was taken, and the gate refused.",
            "Look at the batch: rewards that are no numbers, log-probs of minus infinity.",
        )
        self.mismatch = of_run(
            "iterpo_learner_mismatch_ratio",
            "Trainer's probability over sampler's, of sampled tokens, by percentile.",
            "Far from 1: engine and learner compute something else. Compare types, delivery and versions.",
            "percentile",
        )
        self.outside = of_run(
            "iterpo_learner_mismatch_outside_ratio",
            "Share of tokens whose ratio is outside [0.9, 1.1].",
            "Beyond its noise floor (0.075 in bfloat16): as above; run.mismatch corrects what is left.",
        )
        self.age = of_run(
            "iterpo_learner_policy_age_versions",
            "Versions between sampling and use, of an iteration's groups.",
            "Growing: labels are slower than learning; more annotators, or a smaller run.ahead.",
            "of",
        )
        self.wait = made.counter(
            "iterpo_learner_wait_seconds_total",
            "The learner waited for rollouts, or for a verdict; sampling waited for the learner (backpressure).",
            "Rollouts high: more annotators or a faster engine. Backpressure high: fewer prompts. With run.ahead, both "
            "high: something else holds the loop up.",
            ["run", "what"],
        )
        self.dropped = made.counter(
            "iterpo_learner_dropped_completions_total",
            "Not trained on, by reason.",
            "policy_age: as above. no_logprobs: answers that came as texts, which policy gradients cannot use.",
            ["reason"],
        )
        self.completions = made.counter(
            "iterpo_learner_completions_total", "Completions trained on.", "None while active: see the waits."
        )
        self.tokens = made.counter("iterpo_learner_tokens_total", "Tokens trained on.", "As above.")
        for state in ENDED:
            self.ended.labels(state)  # a counter must be seen at 0 before its first increase can be
        for decision in DECISIONS:
            self.iterations.labels(decision)

    def begin(self, run_id: str, ahead: int = 0, max_kl: float = math.nan) -> None:
        """A run starts, or goes on."""
        self._runs[run_id] = True
        self._runs.move_to_end(run_id)
        over = [run for run, active in self._runs.items() if not active][: max(0, len(self._runs) - SHOWN_RUNS)]
        for gone in over:
            del self._runs[gone]
            for metric in (*self._of_runs, self.wait):
                metric.remove_by_labels({"run": gone})
        self.active.labels(run_id).set(1)
        self.paused.labels(run_id).set(0)
        self.ahead.labels(run_id).set(ahead)
        self.kl_limit.labels(run_id).set(max_kl)
        self.progressed.labels(run_id).set(time.time())

    def end(self, run_id: str, state: str) -> None:
        self._runs[run_id] = False
        self.active.labels(run_id).set(0)
        self.waiting.labels(run_id).set(0)
        self.paused.labels(run_id).set(0)
        self.ended.labels(state.lower()).inc()

    def observe(self, row: IterationRow) -> None:
        run, metrics = row.run_id, row.metrics
        self.iterations.labels(_decision(row)).inc()
        self.seconds.observe(row.seconds)
        self.iteration.labels(run).set(row.iteration)
        self.progressed.labels(run).set(time.time())
        for split, value in (("train", row.train_reward), ("heldout", row.heldout_reward)):
            if not math.isnan(value):
                self.reward.labels(run, split).set(value)
        if row.proved:  # without a candidate nothing was measured
            self.kl.labels(run).set(row.kl)
        for name, value in metrics.items():
            if name.startswith("dropped_"):
                self.dropped.labels(name.removeprefix("dropped_")).inc(value)
            elif name.startswith("wait_"):
                self.wait.labels(run, name.removeprefix("wait_").removesuffix("_seconds")).inc(value)
            elif name.startswith("policy_age_"):
                self.age.labels(run, name.removeprefix("policy_age_")).set(value)
            elif name.startswith("mismatch_p"):
                self.mismatch.labels(run, name.removeprefix("mismatch_p")).set(value)
        gauges = {"margin_mean": self.margin, "clip_fraction": self.clipped, "entropy": self.entropy}
        gauges |= {"grad_norm": self.grad_norm, "mismatch_outside": self.outside}
        for name in gauges.keys() & metrics.keys():
            gauges[name].labels(run).set(metrics[name])
        if row.decision and "tokens_candidate" in row.decision.numbers:
            self.length.labels(run, "heldout").set(row.decision.numbers["tokens_candidate"])
        self.not_finite.inc(not math.isfinite(metrics.get("grad_norm", 0.0)))
        for name, part in (("sampling_seconds", self.sampling), ("judging_seconds", self.judging)):
            if name in metrics:
                part.observe(metrics[name])
        if "learner_seconds" in metrics:
            self.update.observe(metrics["learner_seconds"])
            self.tokens.inc(metrics["tokens"])
            self.completions.inc(metrics["completions"])
            self.length.labels(run, "train").set(metrics["tokens"] / metrics["completions"])
        if "label_to_served_seconds" in metrics:
            self.lag.observe(metrics["label_to_served_seconds"])


def _decision(row: IterationRow) -> str:
    if row.promoted:
        return "promoted"
    if row.decision:
        return "refused"
    return "replayed" if "learner_seconds" in row.metrics else "no_update"  # of a replay the last one alone is judged
