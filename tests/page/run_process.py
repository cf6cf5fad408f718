"""A real learner service beside the page, whose runs' rows and batches a test writes as a run would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iterpo.clients.channel import connect
from iterpo.clients.learner import LearnerClient
from iterpo.demo.free_ports import free_ports
from iterpo.errors import IterpoError
from iterpo.learner.batch_record import BatchFiles
from iterpo.learner.ledger import Ledger
from iterpo.run_config import RunConfig
from iterpo.types import GateDecision, IterationRow, Progress
from tests.page.page_process import PageService, page_service
from tests.services.labeling_process import ROOT, START_SECONDS

HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\u202e\u200b"


@dataclass
class Runs:
    page: PageService
    data: Path
    client: LearnerClient

    def create(self, run_id: str, method: str = "grpo") -> None:
        ledger = Ledger(self.data / "learner.db")
        ledger.create(run_id, RunConfig(algorithm=method, iterations=20_000).model_dump(), [], [])
        ledger.close()

    def add_rows(self, run_id: str, first: int, last: int) -> None:
        ledger = Ledger(self.data / "learner.db")
        for number in range(first, last + 1):
            ledger.commit(row(run_id, number), Progress(iteration=number, version=number), f"{number:06d}", [])
        ledger.close()

    def keep(self, run_id: str, iteration: int, record: dict[str, Any]) -> None:
        BatchFiles(self.data / "runs" / run_id / "batches", 100).write(iteration, lambda: record)


def row(run_id: str, number: int) -> IterationRow:
    reward = 0.2 + 0.6 * number / (number + 5)
    metrics = {
        "tokens": 2000.0,
        "completions": 64.0,
        "entropy": 2.0 / number,
        "grad_norm": 0.3,
        "clip_fraction": 0.01,
        "policy_age_mean": 0.0,
        "policy_age_max": 0.0,
        "wait_rollouts_seconds": 3.0,
        "sampling_seconds": 3.0,
        "learner_seconds": 5.0,
        "judging_seconds": 2.0,
        "mismatch_outside": 0.02,
    }
    decision = GateDecision(True, (), {"tokens_candidate": 30.0, "kl": 0.1, "heldout_candidate": reward})
    return IterationRow(
        run_id,
        number,
        number,
        True,
        True,
        reward,
        reward - 0.05,
        0.01 * number,
        2.0,
        900.0,
        150.0,
        12.0,
        metrics,
        decision,
    )


def record(groups: int = 8, size: int = 8, tokens: int = 48, text: str = " word") -> dict[str, Any]:
    """What GRPO was trained on, of answers with rewards of 0 to 1."""
    sequences = [
        {
            "group": f"g{g}",
            "role": None,
            "reward": (i + g) % size / (size - 1),
            "tokens": [f"{text}{t}" for t in range(tokens)],
            "logprobs": [-0.1 * (1 + (t + i) % 7) for t in range(tokens)],
            "old_logprobs": [-0.1 * (1 + (t + i) % 7) - 0.01 for t in range(tokens)],
            "behaviour_logprobs": [-0.1 * (1 + (t + i) % 7) - 0.01 for t in range(tokens)],
        }
        for g in range(groups)
        for i in range(size)
    ]
    answers = [
        {
            "completion_id": f"c{n}",
            "prompt_id": f"p{n // size}",
            "prompt": f"Question {n // size}? {HOSTILE}",
            "text": "".join(s["tokens"]),
            "policy_version": 3,
            "finish_reason": "stop",
        }
        for n, s in enumerate(sequences)
    ]
    batch = {"sequences": sequences, "pairs": None, "normalizer_constant": tokens}
    return {"method": "grpo", "settings": {"kl.beta": "0.0"}, "batch": batch, "answers": answers}


@contextmanager
def page_with_runs(directory: Path) -> Iterator[Runs]:
    (port,) = free_ports(1)
    learner = f'[learner]\naddress = "127.0.0.1:{port}"\nmetrics_address = ""\n'
    with page_service(directory, more=learner) as page:
        command = [sys.executable, "-m", "services.learner", "--config", str(directory / "iterpo.toml")]
        with (directory / "learner.log").open("ab") as log:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        try:
            with connect(f"127.0.0.1:{port}") as channel:
                client = LearnerClient(channel)
                _await(client)
                yield Runs(page, directory / "data", client)
        finally:
            process.terminate()
            process.wait(20)


def _await(client: LearnerClient) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.runs()
        except IterpoError:
            assert time.monotonic() < deadline, "the learner did not come up"
            time.sleep(0.2)
        else:
            return
