"""What inference exports beside the calls' own metrics (services/call_metrics.py)."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from iterpo.types import RUN
from services.instruments import Instruments

SWAP_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
HTTP_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LOAD_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SWAPS = ("promote", "rollback", "canary")
CALLS = ("generate", "http", "sample")
OTHER = "OTHER"
PROOFS = (
    "proved",
    "BASE_DRIFTED",
    "BASE_MISMATCH",
    "DIGEST_MISMATCH",
    "FILE_MISSING",
    "MANIFEST_UNREADABLE",
    "POLICY_MISSING",
    "POLICY_REJECTED",
    "PROBE_CLOSER_TO_BASE",
    "PROBE_DISAGREES",
    "PROBE_MISMATCH",
    "PROBE_NOT_FINITE",
    "PROBE_UNCHANGED",
    "STALE_MANIFEST",
    OTHER,
)
FAILED_SWAPS = (
    "BASE_DRIFTED",
    "CANARY_UNDER_WAY",
    "DISK_FULL",
    "INTERNAL",
    "NOT_GATED",
    "NO_PREVIOUS",
    "NO_RUN_SLOTS",
    "POLICY_NOT_FOUND",
    "POLICY_NOT_LOADED",
    "QUORUM_MISSED",
    "REQUEST_ID_REUSED",
    "STILL_IN_USE",
    OTHER,
)


class InferenceMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        made = self.made = Instruments(registry)
        self.tokens = made.counter(
            "iterpo_inference_tokens_total",
            "Tokens generated, by the call that asked.",
            "None while requests are in flight: the engine hangs; its log, then restart the service.",
            ["call"],
        )
        self.version = made.gauge(
            "iterpo_inference_policy_version",
            "Version by role: serving, candidate, canary (0: none), baked, or a run beside what serves.",
            "A canary for hours: too little traffic for its test; raise inference.canary.share, or decide by hand "
            "(iterpo policies promote, retire).",
            ["role"],
        )
        self.swap = made.histogram(
            "iterpo_inference_swap_seconds",
            "From the call until new requests could start on the new version.",
            "Above a tenth of a second: look at CPU use beside the engine.",
            SWAP_BUCKETS,
        )
        self.load = made.histogram(
            "iterpo_inference_load_seconds",
            "Verify, load and probe.",
            "Growing: the engine is busy (probes wait their turn), or the disk is slow.",
            LOAD_BUCKETS,
        )
        self.swaps = made.counter(
            "iterpo_inference_swaps_total",
            "Swaps by kind.",
            "Rollbacks: somebody had a reason; iterpo policies history.",
            ["kind"],
        )
        self.swaps_failed = made.counter(
            "iterpo_inference_swaps_failed_total",
            "Promotions and rollbacks that were refused or broke, by reason; OTHER: one that is rare.",
            "QUORUM_MISSED: iterpo policies replicas. Others: the inference log.",
            ["reason"],
        )
        self.proofs = made.counter(
            "iterpo_inference_proofs_total",
            "Loads by result: proved, or the reason.",
            "Anything but proved: the candidate is not served. PROBE reasons mean that engine and learner disagree; "
            "compare versions and types of both.",
            ["result"],
        )
        self.probe_error = made.gauge(
            "iterpo_inference_probe_error_nats",
            "Mean absolute error of the last probe.",
            "Growing towards its bound: as above.",
        )
        self.in_flight = made.gauge(
            "iterpo_inference_requests_in_flight",
            "Requests holding a version.",
            "Constant while tokens stand still: the engine hangs.",
        )
        self.attested = made.counter(
            "iterpo_inference_attested_tokens_total",
            "Tokens of live answers scored once more: probability ratio within [0.9, 1.1], or outside.",
            "More than a few per cent outside: what serves is not what was proved; roll back.",
            ["ratio"],
        )
        self.attested_error = made.gauge(
            "iterpo_inference_attested_error_nats", "Mean absolute error of the last attested answer.", "As above."
        )
        self.continued = made.counter(
            "iterpo_inference_continued_total",
            "Answers that another version took up when it was promoted (inference.in_flight).",
            "Many, and users notice breaks in style: set inference.in_flight to finish.",
        )
        self.baked = made.counter(
            "iterpo_inference_baked_total",
            "Versions merged because they served long enough.",
            "None where many are expected: versions follow one another too fast for it.",
        )
        self.canary = made.gauge(
            "iterpo_inference_canary_requests",
            "Since the canary began, by whose (canary, serving) and what became of them (answered, failed, good, bad).",
            "Failed or bad higher on the canary's side: its test will roll back; iterpo policies history.",
            ["arm", "what"],
        )
        self.canary_verdicts = made.counter(
            "iterpo_inference_canary_verdicts_total",
            "Canaries ended by their test.",
            "Rollbacks: candidates pass the gate and users like them less; look at the reward.",
            ["verdict"],
        )
        self.replicas = made.gauge(
            "iterpo_inference_replicas",
            "Services that follow this one: connected, and those of them that serve what serves here.",
            "Fewer serving the same than connected, for minutes: iterpo policies replicas.",
            ["which"],
        )
        self.http = made.counter(
            "iterpo_inference_http_total",
            "Answers of the OpenAI-compatible door by status.",
            "5xx: the log. 429: more replicas, or a higher inference.max_queue.",
            ["path", "status"],
        )
        self.http_seconds = made.histogram(
            "iterpo_inference_http_seconds",
            "Until the answer, or a stream's beginning.",
            "Growing: requests wait for a place; answers admitted says how many.",
            HTTP_BUCKETS,
            ["path"],
        )
        self.refused = made.counter(
            "iterpo_inference_refused_total",
            "Requests refused for want of room, by reason.",
            "Growing: more replicas, a higher inference.max_queue, or fewer prompts at once.",
            ["reason"],
        )
        self.admitted = made.gauge(
            "iterpo_inference_answers_admitted",
            "Answers under way or waiting.",
            "Above inference.max_num_seqs for long: requests queue.",
        )
        self._runs: set[str] = set()
        # A counter must be seen at 0 before its first increase can be.
        known = {self.swaps: SWAPS, self.tokens: CALLS, self.proofs: PROOFS, self.swaps_failed: FAILED_SWAPS}
        for counter, values in known.items():
            for value in values:
                counter.labels(value)

    def show_heads(self, heads: Mapping[str, int]) -> None:
        """Versions of the runs beside what serves; runs that are no more leave no number behind."""
        for gone in self._runs - set(heads):
            self.version.remove(f"{RUN}{gone}")
        self._runs = set(heads)
        for run, version in heads.items():
            self.version.labels(f"{RUN}{run}").set(version)

    def on_proof(self, result: str) -> None:
        self.proofs.labels(result if result in PROOFS else OTHER).inc()

    def on_failed_swap(self, reason: str) -> None:
        self.swaps_failed.labels(reason if reason in FAILED_SWAPS else OTHER).inc()

    def on_refusal(self, reason: str) -> None:
        self.refused.labels(reason).inc()
