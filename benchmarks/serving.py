"""Inference as its users meet it: over gRPC, with swaps, and with the memory of its processes."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_memory_mib
from benchmarks.workload import ROUNDS, SAMPLES, SETTINGS, prompts
from iterpo.algorithms import resolve
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.learner.learner import LoraLearner
from iterpo.run_config import RunConfig
from iterpo.supervisor import Supervisor
from iterpo.types import GateDecision

SWAPS = 10


def measure_serving(base: Path, home: Path) -> dict[str, Any]:
    config_path = write_settings(home / time.strftime("%Y%m%d-%H%M%S"), base)
    settings = load(config_path)
    with Supervisor(config_path) as services:
        started = time.monotonic()
        services.wait_ready(300)
        ready = time.monotonic() - started
        client = InferenceClient(connect_service(settings, "inference"))
        rates = [_round(client) for _ in range(ROUNDS + 1)][1:]
        policies = PolicyClient(connect_service(settings, "inference"))
        loads, swaps = _swaps(policies, base, settings.data_dir / "policies")
        rollback = _timed(lambda: policies.rollback("benchmark"))
        memory = {name: peak_memory_mib(services.pid(name)) for name in ("inference", "labeling", "learner")}
    return {
        "ready_seconds": round(ready, 1),
        "tokens_per_second_p50": round(statistics.median(rates), 1),
        "tokens_per_second_min": round(min(rates), 1),
        "tokens_per_second_max": round(max(rates), 1),
        "load_and_proof_seconds_p50": round(statistics.median(loads), 3),
        "swap_ms_p50": round(statistics.median(swaps), 3),
        "swap_ms_max": round(max(swaps), 3),
        "rollback_call_ms": round(1000 * rollback, 1),
        "peak_memory_mib": memory,
    }


def _round(client: InferenceClient) -> float:
    started = time.monotonic()
    answers = client.sample(prompts(), SAMPLES, SETTINGS)
    return sum(len(c.token_ids) for group in answers for c in group) / (time.monotonic() - started)


def _swaps(policies: PolicyClient, base: Path, root: Path) -> tuple[list[float], list[float]]:
    """Seconds of each load with its proof, and the server's own milliseconds of each promotion."""
    import torch

    config = RunConfig(algorithm="grpo")
    learner = LoraLearner(base, resolve(config), config)
    loads, swaps = [], []
    for version in range(1, SWAPS + 1):
        with torch.no_grad():
            for parameter in learner.model.parameters:
                parameter.add_(torch.randn_like(parameter) * 0.003)
        digest = learner.publish(root, version, {"parent": version - 1}, {})
        loads.append(_timed(lambda v=version, d=digest: policies.load(v, d)))  # type: ignore[misc]  # bound on purpose
        swaps.append(policies.promote(version, GateDecision(True, (), {"by_hand": 1.0}), f"benchmark {version}"))
    return loads, swaps


def _timed(call: Any) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started
