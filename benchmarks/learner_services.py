"""iterpo's whole steps: a run through the real services, each of whose iterations samples, labels, updates, publishes,
proves, judges held-out answers and swaps. All of that is in an iteration's seconds."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from benchmarks.learner_task import settings
from benchmarks.machine import peak_memory_mib
from benchmarks.open_gate import ANYTHING
from iterpo import wire
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.run_config import RunConfig
from iterpo.run_data import read_run_data
from iterpo.supervisor import Supervisor
from iterpo.types import GateDecision, IterationRow
from iterpo.v1 import learner_pb2


class Services:
    def __init__(self, home: Path, base: Path, more: str = "") -> None:
        """`more`: further sections of iterpo.toml."""
        config_path = write_settings(home, base)
        config_path.write_text(config_path.read_text() + more)
        self._supervisor = Supervisor(config_path)
        self._supervisor.__enter__()
        self._supervisor.wait_ready(300)
        connected = load(config_path)
        self.generator = InferenceClient(connect_service(connected, "inference"))
        self._policies = PolicyClient(connect_service(connected, "inference"))
        self._learner = LearnerClient(connect_service(connected, "learner"))

    def shutdown(self) -> None:
        self._supervisor.__exit__(None, None, None)

    def run(self, method: str, iterations: int, seed: int = 0) -> list[IterationRow]:
        wanted = settings(method, seed, iterations) | {"gate": ANYTHING}
        return self.rows(f"{method}-{uuid.uuid4().hex[:8]}", wanted)

    def rows(self, run_id: str, wanted: dict[str, Any]) -> list[IterationRow]:
        """Of a run from the base."""
        self._policies.promote(0, GateDecision(True, ("benchmark",), {"by_hand": 1.0}), uuid.uuid4().hex)
        examples, heldout, _ = read_run_data(RunConfig.model_validate(wanted), Path())
        self._learner.start(run_id, wanted, examples, heldout)
        rows, run = [], learner_pb2.Run()
        for news in self._learner.watch(run_id):
            self._supervisor.poll()
            run = news.run
            if news.HasField("row"):
                rows.append(wire.row_from_proto(run_id, news.row))
        if run.state != learner_pb2.RUN_STATE_FINISHED:
            raise RuntimeError(f"{run_id} did not finish: {run.status}")
        if refused := [row.iteration for row in rows if not row.promoted]:
            raise RuntimeError(f"{run_id}: the gate refused iterations {refused}, whatever its bounds")
        return rows

    def step(self, method: str, seed: int) -> dict[str, Any]:
        """The second iteration of a run: the first one has a new model's first batch."""
        row = self.run(method, 2, seed)[-1]
        return {
            "seconds": row.seconds,
            "sampled_tokens": row.metrics["sampled_tokens"],
            "trained_completions": row.metrics["completions"],
            "sampling_seconds": row.metrics["sampling_seconds"],
            "update_seconds": row.metrics["learner_seconds"],
            "load_seconds": row.load_ms / 1000,
            "judging_seconds": row.metrics["judging_seconds"],
            "seconds_without_judging": row.seconds - row.metrics["judging_seconds"],
            "sampled_tokens_per_second": row.tokens_per_second,
            "peak_mib": max(peak_memory_mib(self._supervisor.pid("learner")).values()),
            "engine_peak_mib": sum(peak_memory_mib(self._supervisor.pid("inference")).values()),
        }
