"""Others look at the model in the middle of an update, and neither notices."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from iterpo.algorithms import resolve
from iterpo.learner.learner import LoraLearner
from iterpo.learner.turns import Turns
from iterpo.run_config import RunConfig
from tests.learner.test_trainer import selection


def test_turns_go_round_in_the_order_of_asking_and_come_back_to_who_gave_way() -> None:
    turns, order, waiting = Turns(), [], []

    def take(name: str) -> None:
        with turns.taken():
            order.append(name)

    with turns.taken():
        for name in "ab":
            waiting.append(threading.Thread(target=take, args=(name,)))
            waiting[-1].start()
            while len(turns._queue) < 1 + len(waiting):
                pass
        assert order == []
        turns.give_way()
        order.append("first again")
    for thread in waiting:
        thread.join(10)
    assert order == ["a", "b", "first again"]


def test_nobody_waiting_giving_way_keeps_the_turn() -> None:
    turns = Turns()
    with turns.taken():
        before = turns._queue[0]
        turns.give_way()
        assert turns._queue[0] is before


def watched_update(learner: LoraLearner, look) -> list:
    """An update of many micro-batches, and what a thread that keeps looking saw between two of them."""
    seen, between, done, give_way = [], [], threading.Event(), learner.trainer._give_way

    def counted() -> None:
        if len(learner.turns._queue) > 1:
            between.append(len(seen))
        give_way()

    def watch() -> None:
        while not done.is_set():
            seen.append(look())

    learner.trainer._give_way = counted
    thread = threading.Thread(target=watch)
    thread.start()
    learner.update(selection(12))
    done.set()
    thread.join(10)
    assert len(between) > 1
    return seen


@pytest.mark.parametrize("algorithm", ["grpo", "online_dpo", "ppo"])
def test_what_is_measured_at_a_snapshot_in_the_middle_of_an_update_is_what_it_was_and_the_update_too(
    tiny_model: Path, algorithm: str
) -> None:
    config = RunConfig(algorithm=algorithm, max_tokens=3, learning_rate=0.05, micro_batch_tokens=64)
    answers, weights = selection(2).completions, []
    for watched in (False, True):
        learner = LoraLearner(tiny_model, resolve(config), config)
        learner.update(selection(2))
        state, before = learner.snapshot(), (learner.kl(answers), learner.log_ratios(answers))
        if watched:
            seen = watched_update(
                learner, lambda learner=learner, at=state: (learner.kl(answers, at), learner.log_ratios(answers, at))
            )
            assert all(numbers == before for numbers in seen)
        else:
            learner.update(selection(12))
        assert learner.kl(answers) != before[0], "the update moved the policy"
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters]))
    assert torch.equal(*weights)


def test_a_snapshot_given_back_is_not_changed_by_what_is_learned_from_it(tiny_model: Path) -> None:
    """It may have to be given back once more, or be saved."""
    config = RunConfig(algorithm="grpo", max_tokens=3, learning_rate=0.05)
    learner = LoraLearner(tiny_model, resolve(config), config)
    learner.update(selection(2))
    state, weights = learner.snapshot(), []
    for _ in range(2):
        learner.restore(state)
        learner.update(selection(3))
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters]))
    assert torch.equal(*weights)


def test_a_checkpoint_may_be_of_a_snapshot(tiny_model: Path, tmp_path: Path) -> None:
    config = RunConfig(algorithm="grpo", max_tokens=3, learning_rate=0.05)
    learner = LoraLearner(tiny_model, resolve(config), config)
    state = learner.snapshot()
    learner.update(selection(2))
    learner.save(tmp_path / "000001", state)
    learner.load(tmp_path / "000001")
    assert all(torch.equal(learner.model.adapter()[name], t) for name, t in state[0].items())
