"""A leader and a follower, two real processes: the weights of one, whatever happened to the leader's in between."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from iterpo.algorithms import resolve
from iterpo.errors import Unavailable
from iterpo.learner.learner import LoraLearner
from iterpo.learner.ranks import Followers, LeadingLearner, decoded, encoded
from iterpo.run_config import RunConfig
from tests.learner.test_trainer import selection


def config_of(algorithm: str) -> RunConfig:
    return RunConfig(
        algorithm=algorithm, max_tokens=3, learning_rate=0.02, micro_batch_tokens=64, dtype="float32", lora={"r": 4}
    )


@contextmanager
def led(base: Path, algorithm: str, ranks: int = 2) -> Iterator[LeadingLearner]:
    config = config_of(algorithm)
    with Followers(base, config, ranks, threads=1).running() as followers:
        yield LeadingLearner(base, resolve(config), config, followers)


def weights(learner: LoraLearner) -> torch.Tensor:
    learned = [*learner.model.parameters, *(learner.trainer.critic.parameters if learner.trainer.critic else ())]
    return torch.cat([p.detach().flatten() for p in learned])


def history(learner: LoraLearner) -> torch.Tensor:
    """What an update taught, one that was gone back from, and another one, with the KL asked for in between."""
    fresh = weights(learner)
    learner.update(selection(12))
    before = learner.snapshot()
    learner.update(selection(5, seed=1))
    learner.restore(before)
    learner.kl(selection(2).completions)
    learner.update(selection(7, seed=2))
    return weights(learner) - fresh


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Adam turns the rounding of gradients near zero into steps: weights are not as close as gradients."""
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("algorithm", ["grpo", "online_dpo", "ppo"])
def test_a_leader_with_a_follower_learns_what_one_process_does(tiny_model: Path, algorithm: str) -> None:
    config = config_of(algorithm)
    one = LoraLearner(tiny_model, resolve(config), config)
    with counted(one) as whole:
        alone = history(one)
    with led(tiny_model, algorithm) as leader, counted(leader) as half:
        together = history(leader)
    assert difference(alone, together) < 5e-3
    assert 0.3 * sum(whole) < sum(half) < 0.7 * sum(whole), "the follower did its share"
    assert not dist.is_initialized(), "another run may begin"


def test_a_follower_that_is_told_an_old_state_would_be_noticed(tiny_model: Path) -> None:
    """Negative control."""
    config = config_of("grpo")
    alone = history(LoraLearner(tiny_model, resolve(config), config))
    with led(tiny_model, "grpo") as leader:
        tell, first = leader._followers.tell, leader.snapshot()
        leader._followers.tell = lambda state, *rest: tell(first, *rest)
        assert difference(alone, history(leader)) > 5e-2


@contextmanager
def counted(learner: LoraLearner) -> Iterator[list[int]]:
    """Completions that this process passed through the model."""
    counts: list[int] = []
    selected = learner.model.selected
    learner.model.selected = lambda completions: counts.append(len(completions)) or selected(completions)
    yield counts
    learner.model.selected = selected


def test_memory_that_runs_out_for_somebody_let_in_between_leaves_the_ranks_rows_alike(tiny_model: Path) -> None:
    """What the gate measures in the middle of an update is the leader's affair."""
    config = config_of("ppo")
    alone = history(LoraLearner(tiny_model, resolve(config), config))
    with led(tiny_model, "ppo") as leader:
        budget, halved = leader.model.budget, []

        def let_in() -> None:
            with leader.model.alone():
                leader.model.budget.tokens = leader.model.budget.most = 128  # above the least, so that it can be halved
                leader.model.budget.halve()
                halved.append(leader.model.budget.tokens)

        leader.trainer._give_way = let_in
        together = history(leader)
        assert halved
        assert leader.model.budget is budget
    assert difference(alone, together) < 5e-3


def test_a_rank_that_dies_ends_the_update_with_its_number(tiny_model: Path) -> None:
    with led(tiny_model, "grpo", ranks=3) as leader:
        leader.update(selection(6))
        leader._followers._processes[1].kill()
        with pytest.raises(Unavailable, match=r"Rank 2 .*exit code -9") as lost:
            leader.update(selection(6))
        assert lost.value.reason == "RANK_LOST"


def test_a_rank_that_does_not_begin_is_no_long_wait(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iterpo.learner.ranks.sys.executable", "/bin/false")
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"Rank 1 .*exit code 1"), led(tiny_model, "grpo"):
        pass
    assert time.monotonic() - began < 10


def test_followers_end_with_the_context(tiny_model: Path) -> None:
    with led(tiny_model, "grpo", ranks=3) as leader:
        leader.update(selection(4))
        processes = leader._followers._processes
        assert [process.poll() for process in processes] == [None, None]
    assert [process.returncode for process in processes] == [0, 0]


def test_state_and_selection_are_told_whole(tiny_model: Path) -> None:
    config = config_of("ppo")
    learner = LoraLearner(tiny_model, resolve(config), config)
    learner.update(selection(3))
    state, given = learner.snapshot(), selection(3)
    given.baselines[0], given.rewards[1], given.dropped["tied_pair"] = 0.5, float("-inf"), 2
    (adapter, optimizer, critic), told = decoded(encoded(state, given))
    assert told == given
    assert told.completions[0].finish_reason is given.completions[0].finish_reason
    assert all(torch.equal(adapter[name], t) for name, t in state[0].items())
    assert all(torch.equal(critic[name], t) for name, t in state[2].items())
    assert optimizer["param_groups"] == json.loads(json.dumps(state[1]["param_groups"]))  # tuples become lists
    for index, moments in state[1]["state"].items():
        assert all(torch.equal(optimizer["state"][index][name], t) for name, t in moments.items())
