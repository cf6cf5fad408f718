"""One update, for every algorithm: the gradient is the paper's, the minibatches keep pairs whole, rewards go up."""

from __future__ import annotations

import random

import pytest
import torch

from iterpo.algorithms import ALGORITHMS, resolve
from iterpo.learner.policy_model import PolicyModel
from iterpo.learner.trainer import Trainer, split
from iterpo.response_sampling import Pair, Selection
from iterpo.run_config import LoraConfig, RunConfig
from iterpo.types import Completion, FinishReason


def answer(name: str, tokens: tuple[int, ...], logprobs=()) -> Completion:
    return Completion(name, "p", "g", "", (1, 5, 9), tokens, tuple(logprobs), FinishReason.STOP, 0, "")


def selection(groups: int = 3, seed: int = 0) -> Selection:
    """Groups of four; token 10 is good and token 20 is bad, and the pairs say so too."""
    draw = random.Random(seed)
    made = Selection()
    for g in range(groups):
        good = [made.add(answer(f"{g}a{i}", (10, draw.randrange(3, 60), 2)), 1.0, g) for i in range(2)]
        bad = [made.add(answer(f"{g}b{i}", (20, draw.randrange(3, 60), 2)), 0.0, g) for i in range(2)]
        for chosen, rejected in zip(good, bad, strict=True):
            made.pairs.append(Pair(chosen, rejected))
    return made


def trainer(tiny_model, algorithm: str, **config) -> Trainer:
    run = RunConfig(algorithm=algorithm, **({"learning_rate": 0.02, "max_tokens": 3} | config))
    model = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, budget=run.micro_batch_tokens, dtype="float64")
    return Trainer(model, resolve(run), run)


def preference_of_ten_over_twenty(made: Trainer) -> float:
    good, bad = made.model.logprobs([answer("a", (10,))]), made.model.logprobs([answer("b", (20,))])
    return float(good - bad)


@pytest.mark.parametrize("algorithm", [a.name for a in ALGORITHMS])
def test_every_algorithm_learns_which_token_is_good(tiny_model, algorithm):
    made, data = trainer(tiny_model, algorithm), selection()
    if "rewards" not in made.algorithm.gradient_coefficient.needs and "pairs" not in (
        made.algorithm.gradient_coefficient.needs
    ):
        data = Selection([c for c in data.completions if c.token_ids[0] == 10], [1.0] * 6, [0, 0, 1, 1, 2, 2])
    before = preference_of_ten_over_twenty(made)
    for _ in range(5):
        numbers = made.update(data)
    assert preference_of_ten_over_twenty(made) > before + 0.05
    assert numbers["grad_norm"] > 0


def test_swapping_the_rewards_swaps_the_direction(tiny_model):
    """Negative control of the test above."""
    made, data = trainer(tiny_model, "grpo"), selection()
    data.rewards = [1.0 - r for r in data.rewards]
    before = preference_of_ten_over_twenty(made)
    for _ in range(5):
        made.update(data)
    assert preference_of_ten_over_twenty(made) < before - 0.05


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "online_dpo"])
def test_the_budget_of_a_micro_batch_changes_no_weight(tiny_model, algorithm):
    """Invariant 5, through the whole update: clipping and Adam see the same numbers."""
    results = []
    for budget in (64, 4096):
        made = trainer(tiny_model, algorithm, micro_batch_tokens=budget, minibatches=2, epochs=2)
        made.update(selection(12))
        results.append(torch.cat([p.detach().flatten() for p in made.model.parameters]))
    assert torch.allclose(*results, atol=1e-10)


def test_minibatches_keep_groups_and_pairs_whole():
    data = selection(5)
    parts = split(data, 3)
    assert sorted(i for part in parts for i in part.sequences) == list(range(len(data.completions)))
    assert sorted(n for part in parts for n in part.pairs) == list(range(len(data.pairs)))
    for part in parts:
        members = set(part.sequences)
        assert all(data.pairs[n].chosen in members and data.pairs[n].rejected in members for n in part.pairs)


def test_more_minibatches_than_groups_are_as_many_as_groups():
    assert len(split(selection(2), 8)) == 2


def test_the_mismatch_between_trainer_and_sampler_is_measured(tiny_model):
    made, data = trainer(tiny_model, "grpo"), selection()
    logprobs = made.model.logprobs(data.completions)
    rows = logprobs.split([len(c.token_ids) for c in data.completions])
    answers = zip(data.completions, rows, strict=True)
    shifted = [answer(c.completion_id, c.token_ids, (row - 0.5).tolist()) for c, row in answers]
    numbers = made.update(Selection(shifted, data.rewards, data.groups))
    assert numbers["mismatch_p50"] == pytest.approx(2.718281828**0.5, abs=1e-3)
    assert numbers["mismatch_outside"] == 1.0


def test_an_update_that_is_not_finite_is_not_applied(tiny_model):
    made, data = trainer(tiny_model, "grpo"), selection()
    before = torch.cat([p.detach().flatten() for p in made.model.parameters]).clone()
    data.rewards = [float("nan")] * len(data.rewards)
    numbers = made.update(data)
    assert numbers["grad_norm"] != numbers["grad_norm"]
    assert torch.equal(torch.cat([p.detach().flatten() for p in made.model.parameters]), before)
