"""What inference exports beside the calls' own metrics (services/call_metrics.py)."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from iterpo.types import RUN

SWAP_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
HTTP_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LOAD_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class InferenceMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter("iterpo_inference_tokens_total", "Tokens generated.", ["call"], registry=registry)
        self.version = Gauge("iterpo_inference_policy_version", "Version by role.", ["role"], registry=registry)
        self.swap = Histogram(
            "iterpo_inference_swap_seconds",
            "From the call until new requests could start on the new version.",
            buckets=SWAP_BUCKETS,
            registry=registry,
        )
        self.load = Histogram(
            "iterpo_inference_load_seconds", "Verify, load and probe.", buckets=LOAD_BUCKETS, registry=registry
        )
        self.swaps = Counter("iterpo_inference_swaps_total", "Swaps by kind.", ["kind"], registry=registry)
        self.proofs = Counter(
            "iterpo_inference_proofs_total", "Loads by result: proved, or the reason.", ["result"], registry=registry
        )
        self.probe_error = Gauge(
            "iterpo_inference_probe_error_nats", "Mean absolute error of the last probe.", registry=registry
        )
        self.in_flight = Gauge("iterpo_inference_requests_in_flight", "Requests holding a version.", registry=registry)
        self.attested = Counter(
            "iterpo_inference_attested_tokens_total",
            "Tokens of live answers scored once more: probability ratio within [0.9, 1.1], or outside.",
            ["ratio"],
            registry=registry,
        )
        self.attested_error = Gauge(
            "iterpo_inference_attested_error_nats",
            "Mean absolute error of the last attested answer.",
            registry=registry,
        )
        self.continued = Counter(
            "iterpo_inference_continued_total",
            "Answers that another version took up when it was promoted (inference.in_flight).",
            registry=registry,
        )
        self.baked = Counter(
            "iterpo_inference_baked_total", "Versions merged because they served long enough.", registry=registry
        )
        self.canary = Gauge(
            "iterpo_inference_canary_requests",
            "Since the canary began, by whose (canary, serving) and what became of them (answered, failed, good, bad).",
            ["arm", "what"],
            registry=registry,
        )
        self.canary_verdicts = Counter(
            "iterpo_inference_canary_verdicts_total", "Canaries ended by their test.", ["verdict"], registry=registry
        )
        self.replicas = Gauge(
            "iterpo_inference_replicas",
            "Services that follow this one: connected, and those of them that serve what serves here.",
            ["which"],
            registry=registry,
        )
        self.http = Counter("iterpo_inference_http_total", "Answers by status.", ["path", "status"], registry=registry)
        self.http_seconds = Histogram(
            "iterpo_inference_http_seconds",
            "Until the answer, or a stream's beginning.",
            ["path"],
            buckets=HTTP_BUCKETS,
            registry=registry,
        )
        self.refused = Counter(
            "iterpo_inference_refused_total",
            "Requests refused for want of room, by reason.",
            ["reason"],
            registry=registry,
        )
        self._runs: set[str] = set()
        self.admitted = Gauge("iterpo_inference_answers_admitted", "Answers under way or waiting.", registry=registry)

    def show_heads(self, heads: Mapping[str, int]) -> None:
        """Versions of the runs beside what serves; runs that are no more leave no number behind."""
        for gone in self._runs - set(heads):
            self.version.remove(f"{RUN}{gone}")
        self._runs = set(heads)
        for run, version in heads.items():
            self.version.labels(f"{RUN}{run}").set(version)

    def on_refusal(self, reason: str) -> None:
        self.refused.labels(reason).inc()
