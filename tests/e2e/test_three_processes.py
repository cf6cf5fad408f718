"""The three real services under one supervisor, and any one of them killed in mid-run (invariants 3 and 9)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.labeling import LabelingClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings, load
from iterpo.demo.demo import write_settings
from iterpo.demo.traffic import Traffic
from iterpo.embedded_model import prepare
from iterpo.errors import Unavailable
from iterpo.learner.ledger import Ledger
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.supervisor import Supervisor
from iterpo.types import Outcome, PolicyState
from iterpo.v1 import learner_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

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


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    base = prepare(ROOT / ".iterpo" / "models")
    config_path = write_settings(tmp_path_factory.mktemp("e2e") / "home", base)
    rule = '[labelers.e]\nkind = "verifier"\nfunction = "tests.e2e.rules:share_of_e"\n'
    config_path.write_text(config_path.read_text() + rule)
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


def test_a_killed_learner_goes_on_from_its_checkpoint_and_serving_never_notices(services):
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    with Traffic(services.inference, prompts, max_tokens=4) as traffic:
        services.start("first", iterations=4)
        services.wait("first", lambda run: run.iteration >= 1, RUN_SECONDS)
        services.kill("learner")
        run = services.wait("first", lambda run: run.state == learner_pb2.RUN_STATE_INTERRUPTED, RETURN_SECONDS)
        committed = run.iteration
        services.learner.resume("first")
        services.wait("first", finished, RUN_SECONDS)
    rows = services.learner.get("first").rows
    assert committed >= 1
    assert [row.iteration for row in rows] == [1, 2, 3, 4]
    assert all(row.proved and row.promoted for row in rows)
    assert_every_event_was_used_once(services, "first")
    assert traffic.requests > 5
    assert (traffic.failed, traffic.errors) == (0, [])


def test_a_run_goes_on_when_killed_labeling_is_back(services):
    services.start("second", iterations=4)
    services.wait("second", lambda run: run.iteration >= 1, RUN_SECONDS)
    services.kill("labeling")
    services.wait("second", finished, RUN_SECONDS)
    assert [row.iteration for row in services.learner.get("second").rows] == [1, 2, 3, 4]
    assert_every_event_was_used_once(services, "second")


def test_a_run_waits_for_killed_inference_and_goes_on_when_it_is_back(services):
    services.start("third", iterations=4)
    services.wait("third", lambda run: run.iteration >= 1, RUN_SECONDS)
    before = services.serving()
    services.kill("inference")
    waiting = services.wait("third", lambda run: run.state == learner_pb2.RUN_STATE_WAITING, RETURN_SECONDS)
    assert "waiting for" in waiting.status
    services.wait("third", finished, RUN_SECONDS)
    rows = services.learner.get("third").rows
    assert [row.iteration for row in rows] == [1, 2, 3, 4]
    assert_every_event_was_used_once(services, "third")
    assert services.serving() == rows[-1].policy_version > before


def test_a_policy_learns_from_people_who_compare_its_answers(services):
    """A person who likes the letter e, through the same calls as `iterpo annotate`; answers are shown in the order that
    the server drew, and the label is of what was shown."""
    people = LabelingClient(connect_service(services.settings, "labeling", "annotator"))
    settings = {"algorithm": "online_dpo", "labeler": "people", "response_sampling": {"name": "random_pair", "size": 2}}
    services.start("people", iterations=2, **settings, kl={}, prompts_per_iteration=3)
    labels, deadline = 0, time.monotonic() + RUN_SECONDS
    while services.learner.get("people").run.state not in OVER and time.monotonic() < deadline:
        leases, _ = people.lease("ann", 4, "people")
        for lease in leases:
            shown = (lease.task.second, lease.task.first) if lease.swapped else (lease.task.first, lease.task.second)
            better = Outcome.FIRST if shown[0].text.count("e") >= shown[1].text.count("e") else Outcome.SECOND
            labels += people.submit(lease, better, strength=2, duration_seconds=1.0).accepted
        time.sleep(0.2)
    services.wait("people", finished, 1.0)
    rows = services.learner.get("people").rows
    assert [(row.iteration, row.proved) for row in rows] == [(1, True), (2, True)]
    assert labels == 6
    assert_every_event_was_used_once(services, "people", least=2 * 3 * 3)  # a group, a task and a label each
