"""The three real services under one supervisor, for tests that start runs and kill services."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.labeling import LabelingClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings, load
from iterpo.demo.demo import write_settings
from iterpo.demo.free_ports import free_ports
from iterpo.embedded_model import prepare
from iterpo.errors import Unavailable
from iterpo.learner.ledger import Ledger
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.supervisor import Supervisor
from iterpo.types import PolicyState
from iterpo.v1 import learner_pb2

ROOT = Path(__file__).parents[2]
START_SECONDS, RUN_SECONDS, RETURN_SECONDS = 300, 240, 120
SHORT = {
    "algorithm": "grpo",
    "labeler": "e",
    "prompts_per_iteration": 2,
    "response_sampling": {"size": 4},
    "kl": {"beta": 0.0},
    "learning_rate": 5e-4,
    "max_tokens": 12,
    "gate": {"min_heldout_gain": -1.0, "max_kl": 50.0},
}

OVER = (learner_pb2.RUN_STATE_FINISHED, learner_pb2.RUN_STATE_FAILED, learner_pb2.RUN_STATE_STOPPED)


@dataclass
class Services:
    supervisor: Supervisor
    settings: Settings

    def kill(self, name: str) -> None:
        os.kill(self.supervisor.pid(name), signal.SIGKILL)

    @property
    def learner(self) -> LearnerClient:
        return LearnerClient(connect_service(self.settings, "learner"))

    @property
    def inference(self) -> InferenceClient:
        return InferenceClient(connect_service(self.settings, "inference"))

    def serving(self) -> int:
        versions = PolicyClient(connect_service(self.settings, "inference")).versions()
        return next(v.version for v in versions if v.state is PolicyState.SERVING)

    def start(self, run_id: str, iterations: int, **settings: object) -> None:
        examples, heldout = (read(demo_file(f"{name}.jsonl")) for name in ("prompts", "heldout"))
        self.learner.start(run_id, {**SHORT, "iterations": iterations, **settings}, examples[:8], heldout[:4])

    def wait(self, run_id: str, until: Callable[[learner_pb2.Run], bool], seconds: float) -> learner_pb2.Run:
        """The run as soon as `until` holds for it; a learner that is away is waited for."""
        deadline, last, client = time.monotonic() + seconds, None, self.learner
        while time.monotonic() < deadline:
            try:
                last = client.get(run_id).run
            except Unavailable:
                last = None
            if last is not None and until(last):
                return last
            time.sleep(0.1)
        raise TimeoutError(f"run {run_id} stands at: {last}")


@contextmanager
def running_services(home: Path, more: str = "", **settings: str) -> Iterator[Services]:
    """`settings`: more lines of a section of iterpo.toml, by the section's name; `more`: further sections."""
    config_path = write_settings(home, prepare(ROOT / ".iterpo" / "models"))
    rule = '[labelers.e]\nkind = "verifier"\nfunction = "tests.e2e.rules:share_of_e"\n'
    http_port, page_port = free_ports(2)
    text = config_path.read_text().replace('http_address = ""', f'http_address = "127.0.0.1:{http_port}"')
    text = text.replace('page_address = ""', f'page_address = "127.0.0.1:{page_port}"')
    for section, lines in settings.items():
        text = text.replace(f"[{section}]\n", f"[{section}]\n{lines}\n")
    config_path.write_text(text + rule + more)
    with Supervisor(config_path) as supervisor:
        supervisor.wait_ready(START_SECONDS)
        yield Services(supervisor, load(config_path))


def finished(run: learner_pb2.Run) -> bool:
    assert run.state != learner_pb2.RUN_STATE_FAILED, run.status
    return run.state == learner_pb2.RUN_STATE_FINISHED


def assert_every_event_was_used_once(services: Services, run_id: str, least: int = 4 * (2 + 8)) -> None:
    """By ids: what the feedback store holds of the run is what the ledger says was consumed."""
    labeling = LabelingClient(connect_service(services.settings, "labeling"))
    stored = [event.event_id for event in labeling.stream(run_id, 0, 1.0)]
    ledger = Ledger(services.settings.data_dir / "learner.db")
    consumed = ledger.consumed(run_id)
    ledger.close()
    assert len(consumed) == len(set(consumed))
    assert set(consumed) == set(stored)
    assert len(stored) >= least  # by default four iterations of two groups and eight rewards
