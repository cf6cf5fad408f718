"""What the labeling service counts, under `iterpo_labeling_`. No annotator is ever a label."""

from __future__ import annotations

import time
from collections import Counter as TallyOf
from collections.abc import Iterable, Sequence
from concurrent.futures import TimeoutError as ReadTimeout
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from iterpo.errors import IterpoError
from iterpo.labeling.agreement import Agreement
from iterpo.labeling.annotator import MACHINE
from iterpo.labeling.crowd import Profile
from iterpo.labeling.labeler import abstention_class
from iterpo.labeling.people import Receipt
from iterpo.store import work
from iterpo.store.commit import Commit
from iterpo.store.connection import Connection
from iterpo.store.database import FeedbackDatabase
from iterpo.store.tasks import TaskCounts, count_tasks
from iterpo.store.work import Verdict
from iterpo.types import AnnotatorState, Outcome, Reward
from services.instruments import Instruments

COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
READ_SECONDS = 2.0


class LabelingMetrics:
    """Everything the service counts as it happens; `StoreState` adds what the store knows when asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = self.made = Instruments(registry)
        self._rewards = made.counter(
            "iterpo_labeling_rewards_total",
            "Rewards stored.",
            "None while the queue grows: the labeler is down or slow; the log says which.",
            ["labeler"],
        )
        self._abstentions = made.counter(
            "iterpo_labeling_abstentions_total",
            "Final abstentions stored: the labeler could not tell, however often it was asked.",
            "Growing: the labeler fails; the reason and the log say how.",
            ["labeler", "reason"],
        )
        self._events = made.counter(
            "iterpo_labeling_events_total", "Events committed.", "None: nobody records or labels.", ["kind"]
        )
        self._commits = made.histogram(
            "iterpo_labeling_commit_seconds",
            "Duration of a commit, its sync included.",
            "Growing: the disk is slow or nearly full.",
            COMMIT_BUCKETS,
        )
        self._operations = made.counter(
            "iterpo_labeling_store_operations_total",
            "Operations committed; by the commits, how many share a sync.",
            "As above.",
        )
        self._duplicates = made.counter(
            "iterpo_labeling_duplicates_total",
            "Requests answered from the store, because they had come before.",
            "Many: clients do not get their answers; look at the network.",
            ["method"],
        )
        self._labels = made.counter(
            "iterpo_labeling_labels_total",
            "People's labels accepted, by what the screen's order was answered with.",
            "FIRST far from SECOND: people take the left answer; iterpo labels annotators. None: nobody is there.",
            ["presented_outcome"],
        )
        self._refusals = made.counter(
            "iterpo_labeling_labels_refused_total",
            "People's labels refused.",
            "LEASE_EXPIRED: raise labeling.lease_seconds. Others: the reason names it.",
            ["reason"],
        )
        self._annotators = made.gauge(
            "iterpo_labeling_annotators",
            "Annotators by state.",
            "More quarantined: look at their answers (iterpo labels annotators), and at the guideline.",
            ["state"],
        )
        self._gold_accuracy = made.gauge(
            "iterpo_labeling_gold_accuracy_ratio",
            "Right answers to gold tasks, of all annotators.",
            "Falling: the guideline is not understood, or somebody clicks through.",
        )
        self._agreement = made.gauge(
            "iterpo_labeling_agreement_alpha",
            "Krippendorff's alpha over the latest items.",
            "Falling: answers are too alike to tell apart, or the guideline is read in two ways.",
        )
        self._machines = made.gauge(
            "iterpo_labeling_machine_accuracy_ratio",
            "How often a machine labeler is right, on pairs that people labelled too.",
            "Falling while rewards rise: the policy games it. Stop the run; train it on newer labels.",
            ["labeler"],
        )
        self.connections = made.gauge(
            "iterpo_labeling_annotators_connected",
            "Open Annotate streams.",
            "Zero while tasks wait: nobody labels over gRPC; the page counts under calls.",
        )
        made.collected(
            "gauge",
            "iterpo_labeling_tasks",
            "People's tasks by state: open, leased, complete, held.",
            "Open ones growing: more annotators, or fewer pairs a prompt (labeling.pairs).",
            ["state"],
        )
        made.collected(
            "counter",
            "iterpo_labeling_lease_expiries_total",
            "Leases that ran out without a label in time.",
            "Growing: tasks take longer than labeling.lease_seconds, or people leave without releasing them.",
        )
        made.collected(
            "gauge",
            "iterpo_labeling_queue_depth",
            "Completions that a labeler still owes a verdict.",
            "Growing: the labeler is slower than sampling; labeling.workers, or a faster one.",
        )
        for unknown in (self._gold_accuracy, self._agreement):
            unknown.set(float("nan"))  # a share of 0 would be an alarm where nobody has labelled yet
        for outcome in Outcome:
            self._labels.labels(outcome.value)  # a counter must be seen at 0 before its first increase can be

    def on_commit(self, commit: Commit) -> None:
        """For FeedbackDatabase.subscribe. Another server's commits are its own to count."""
        if not commit.operations:
            return
        self._commits.observe(commit.seconds)
        self._operations.inc(commit.operations)
        for kind, count in TallyOf(commit.kinds).items():
            self._events.labels(kind).inc(count)

    def on_verdict(self, verdict: Verdict) -> None:
        if isinstance(verdict, Reward):
            self._rewards.labels(verdict.labeler).inc()
        else:
            self._abstentions.labels(verdict.labeler, abstention_class(verdict.reason)).inc()

    def observe_quality(self, profiles: Sequence[Profile], agreement: Agreement) -> None:
        """After the annotators' quality was worked out anew."""
        for state in AnnotatorState:
            self._annotators.labels(state.value).set(sum(p.state is state for p in profiles))
        right, total = (sum(getattr(p.gold, name) for p in profiles) for name in ("right", "total"))
        self._gold_accuracy.set(right / total if total else float("nan"))
        self._agreement.set(float("nan") if agreement.value is None else agreement.value)
        for profile in profiles:
            if MACHINE in profile.annotator and profile.judged:
                self._machines.labels(profile.annotator).set(profile.accuracy.mean)

    def on_duplicate(self, method: str) -> None:
        self._duplicates.labels(method).inc()

    def on_receipt(self, method: str, presented: Outcome, receipt: Receipt) -> None:
        if receipt.duplicate:
            self.on_duplicate(method)
        elif receipt.accepted:
            self._labels.labels(presented.value).inc()
        else:
            self._refusals.labels(receipt.refused_reason).inc()


@dataclass(frozen=True, slots=True)
class _State:
    tasks: TaskCounts
    queue_depth: int


class StoreState(Collector):
    """Tasks by state, expired leases and queue depth, read from the store at every scrape."""

    def __init__(self, database: FeedbackDatabase) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the store."""
        return ()

    def collect(self) -> Iterable[Metric]:
        tasks = GaugeMetricFamily("iterpo_labeling_tasks", "People's tasks by state.", labels=["state"])
        expired = CounterMetricFamily("iterpo_labeling_lease_expiries", "Leases that ran out without a label in time.")
        depth = GaugeMetricFamily("iterpo_labeling_queue_depth", "Completions that a labeler still owes a verdict.")
        try:
            state = self._database.read(_read_state).result(timeout=READ_SECONDS)
        except (IterpoError, ReadTimeout, RuntimeError):
            # The store is closed or busy for longer than a scrape may take: no sample is better than a wrong one.
            return ()
        for name in ("open", "leased", "complete", "held"):
            tasks.add_metric([name], getattr(state.tasks, name))
        expired.add_metric([], state.tasks.expired_leases)
        depth.add_metric([], state.queue_depth)
        return (tasks, expired, depth)


def _read_state(connection: Connection) -> _State:
    return _State(count_tasks(connection, time.time()), work.depth(connection))
