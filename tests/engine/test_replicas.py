"""Two real inference services, one following the other over gRPC: fetch, prove on its own engine, serve, roll back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from iterpo.cli import policies
from iterpo.errors import WrongState
from tests.engine.served import Served, greedy, prompts, running_inference

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def primary(base_model, learner, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("primary")
    with running_inference(folder, base_model, learner, "adapter", "float32") as service:
        yield service


@pytest.fixture(scope="module")
def replica(primary: Served, base_model, learner, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("replica")
    more = {"follow": primary.address, "replica": "second"}
    with running_inference(folder, base_model, learner, "adapter", "float32", **more) as service:
        yield service


def soon(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def answers(served: Served) -> list[tuple[int, str, str]]:
    return [
        (g[0].policy_version, g[0].policy_digest, g[0].text) for g in served.inference.sample(prompts(2), 1, greedy(12))
    ]


def test_a_replica_serves_what_the_primary_serves_and_answers_alike(primary: Served, replica: Served) -> None:
    first = primary.serve(seed=80)  # the promotion waits for the replica's proof
    soon(lambda: replica.serving == first)
    assert answers(replica) == answers(primary)
    mine = next(p for p in replica.registry.versions() if p.version == first)
    assert mine.proof.proved
    assert mine.decision.promote
    second = primary.serve(seed=81)
    soon(lambda: replica.serving == second)
    primary.registry.rollback("test")
    soon(lambda: replica.serving == first)
    assert answers(replica) == answers(primary)


def test_a_replica_is_changed_at_its_primary_alone(primary: Served, replica: Served) -> None:
    with pytest.raises(WrongState, match="is a replica of") as refused:
        replica.registry.rollback("no")
    assert refused.value.reason == "REPLICA"


def test_the_command_line_shows_who_follows(primary: Served, replica: Served) -> None:
    config = str(primary.folder / "iterpo.toml")
    shown = CliRunner().invoke(policies.command, ["replicas", "--config", config])
    assert shown.exit_code == 0
    assert "second" in shown.output
    assert "yes" in shown.output
