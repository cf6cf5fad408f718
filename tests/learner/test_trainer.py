"""One update, for every algorithm: the gradient is the paper's, the minibatches keep pairs whole, rewards go up."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
import torch

from iterpo.algorithms import TABLE, resolve
from iterpo.errors import ResourceExhausted
from iterpo.gradient import prepared, token_gradient
from iterpo.gradient_coefficient import Grpo
from iterpo.learner.policy_model import PolicyModel
from iterpo.learner.trainer import Trainer, split, strangers, token_batch
from iterpo.response_sampling import Pair, Selection
from iterpo.run_config import LoraConfig, RunConfig
from iterpo.types import Completion, FinishReason
from tests.axes.builders import random_batch
from tests.axes.textbook import LOSSES, data_of


def answer(name: str, tokens: tuple[int, ...], group: int = 6, logprobs=()) -> Completion:
    return Completion(name, "p", "g", "", (1, 5, 3 + group), tokens, tuple(logprobs), FinishReason.STOP, 0, "")


def selection(groups: int = 3, seed: int = 0) -> Selection:
    """Groups of four; token 10 is good and token 20 is bad, and the pairs say so too."""
    draw = random.Random(seed)
    made = Selection()
    for g in range(groups):
        good = [made.add(answer(f"{g}a{i}", (10, draw.randrange(3, 60), 2), g), 1.0, g, 1) for i in range(2)]
        bad = [made.add(answer(f"{g}b{i}", (20, draw.randrange(3, 60), 2), g), 0.0, g, -1) for i in range(2)]
        for chosen, rejected in zip(good, bad, strict=True):
            made.pairs.append(Pair(chosen, rejected))
    return made


def trainer(tiny_model, algorithm: str, dtype: str = "float64", **config) -> Trainer:
    run = RunConfig(algorithm=algorithm, **({"learning_rate": 0.02, "max_tokens": 3} | config))
    model = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, budget=run.micro_batch_tokens, dtype=dtype)
    return Trainer(model, resolve(run), run)


def preference_of_ten_over_twenty(made: Trainer) -> float:
    good, bad = made.model.logprobs([answer("a", (10,))]), made.model.logprobs([answer("b", (20,))])
    return float(good - bad)


def test_an_update_moves_the_policy_towards_the_rewards_and_swapped_rewards_away_from_them(tiny_model):
    """Every method on a preference of its own: test_toy.py."""
    moved = []
    for flip in (False, True):
        made, data = trainer(tiny_model, "grpo"), selection()
        data.rewards = [1.0 - r if flip else r for r in data.rewards]
        before = preference_of_ten_over_twenty(made)
        for _ in range(5):
            numbers = made.update(data)
        moved.append(preference_of_ten_over_twenty(made) - before)
        assert numbers["grad_norm"] > 0
    assert moved[0] > 0.05
    assert moved[1] < -0.05


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "online_dpo", "ppo", "tdpo1", "kto"])
def test_the_budget_of_a_micro_batch_changes_no_weight(tiny_model, algorithm, minibatches):
    """Invariant 5, through the whole update: clipping and Adam see the same numbers."""
    results = []
    for budget in (64, 4096):
        made = trainer(tiny_model, algorithm, micro_batch_tokens=budget, minibatches=minibatches, epochs=2)
        made.update(selection(12))
        learned = [*made.model.parameters, *(made.critic.parameters if made.critic else ())]
        results.append(torch.cat([p.detach().flatten() for p in learned]))
    assert torch.allclose(*results, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_coefficients_told_on_the_way_are_those_of_a_batch_measured_before(tiny_model, name):
    """One pass a micro-batch, of every method: a coefficient that looks at what is still to come is noticed."""
    found = []
    for measured_first in (False, True):
        made, data = trainer(tiny_model, name, micro_batch_tokens=64, epochs=1, minibatches=1), selection(12)
        data.baselines, data.from_reference = [0.5] * len(data.baselines), [i % 2 == 0 for i in range(48)]
        with torch.no_grad():
            for number, parameter in enumerate(made.model.parameters):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        batch = made._with_distributions(made._measure(data, known=measured_first), data.completions, data.completions)
        made._accumulate(data.completions, batch)
        found.append(torch.cat([p.grad.flatten() for p in made.model.parameters]))
    assert len(made.model.micro_batches(data.completions)) == 3
    assert float((found[0] - found[1]).norm()) <= 1e-10 * float(found[1].norm())
    # Of a group of four, two of them good, pass@4 has nothing to learn.
    assert (found[1].norm() > 0) == (name != "pass_at_k")


def passes(made: Trainer, data: Selection) -> float:
    """How often an update passes each completion through the model."""
    count, selected = 0, made.model.selected

    def counted(completions):
        nonlocal count
        count += len(completions)
        return selected(completions)

    made.model.selected = counted
    made.update(data)
    return count / len(data.completions)


@pytest.mark.parametrize(
    ("name", "once"),
    [
        ("grpo", True),
        ("gspo", True),
        ("online_dpo", False),  # the reference passes too
        ("simpo", True),
        ("kto", False),
    ],
)
def test_a_batch_is_passed_through_the_model_once_however_it_is_cut(tiny_model, name, once):
    for budget in (64, 4096):
        made = trainer(tiny_model, name, micro_batch_tokens=budget, kl={"beta": 0.0}, epochs=1, minibatches=1)
        assert (passes(made, selection(12)) == 1) == once
    again = trainer(tiny_model, name, kl={"beta": 0.0}, epochs=2, minibatches=1)
    assert passes(again, selection(12)) >= 2  # what stood before both steps is measured, and the first step passes


def test_a_coefficient_that_hides_what_it_does_not_know_is_found_out(tiny_model):
    """The mean log-prob of the whole batch, through a comparison that is false for what is no number."""

    @dataclass(frozen=True)
    class Hiding(Grpo):
        def __call__(self, batch):
            mean = batch.logprobs.nan_to_num(0.0).mean()
            return super().__call__(batch) * mean

    found = []
    for budget in (64, 4096):
        made = trainer(tiny_model, "grpo", micro_batch_tokens=budget, kl={"beta": 0.0}, epochs=1, minibatches=1)
        made.algorithm = replace(made.algorithm, gradient_coefficient=Hiding())
        made.update(selection(12))
        found.append(torch.cat([p.grad.flatten() for p in made.model.parameters]))
    assert torch.allclose(*found, atol=1e-12)
    assert found[0].abs().max() > 1e-5


def test_rows_that_memory_does_not_hold_are_halved_and_the_update_is_the_same(tiny_model, caplog):
    learned = []
    for limit in (None, 20):
        made, data = trainer(tiny_model, "online_dpo", micro_batch_tokens=1024), selection(12)
        selected = made.model.selected

        def scarce(completions, limit=limit, selected=selected):
            if limit and len(completions) > limit:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
            return selected(completions)

        made.model.selected = scarce
        made.update(data)
        learned.append(torch.cat([p.detach().flatten() for p in made.model.parameters]))
    assert torch.allclose(*learned, atol=1e-10)
    assert "halving" in caplog.text
    assert made.model.budget.tokens < 1024


def test_a_row_that_is_too_long_for_memory_says_what_to_do(tiny_model):
    made = trainer(tiny_model, "grpo", micro_batch_tokens=256)

    def never(completions):
        raise MemoryError

    made.model.selected = never
    with pytest.raises(ResourceExhausted, match="max_tokens"):
        made.update(selection())


def test_minibatches_keep_groups_and_pairs_whole():
    data = selection(5)
    parts = split(data.groups, 3)
    assert sorted(i for part in parts for i in part) == list(range(len(data.completions)))
    for pair in data.pairs:
        assert sum({pair.chosen, pair.rejected} <= set(part) for part in parts) == 1


def test_more_minibatches_than_groups_are_as_many_as_groups():
    assert len(split(selection(2).groups, 8)) == 2


def test_the_mismatch_between_trainer_and_sampler_is_measured(tiny_model):
    made, data = trainer(tiny_model, "grpo"), selection()
    logprobs = made.model.logprobs(data.completions)
    rows = logprobs.split([len(c.token_ids) for c in data.completions])
    answers = zip(data.completions, rows, strict=True)
    shifted = [replace(c, logprobs=tuple((row - 0.5).tolist())) for c, row in answers]
    numbers = made.update(replace(data, completions=shifted, pairs=[]))
    assert numbers["mismatch_p50"] == pytest.approx(2.718281828**0.5, abs=1e-3)
    assert numbers["mismatch_outside"] == 1.0


def test_an_update_that_is_not_finite_is_not_applied(tiny_model):
    made, data = trainer(tiny_model, "grpo"), selection()
    before = torch.cat([p.detach().flatten() for p in made.model.parameters]).clone()
    data.rewards = [float("nan")] * len(data.rewards)
    numbers = made.update(data)
    assert numbers["grad_norm"] != numbers["grad_norm"]
    assert torch.equal(torch.cat([p.detach().flatten() for p in made.model.parameters]), before)


def test_a_stranger_is_an_answer_under_another_prompt():
    answers = [answer(str(i), (10 + i,), group=i // 2) for i in range(4)]
    others = strangers(answers)
    assert [s.token_ids for s in others] == [a.token_ids for a in answers]
    assert all(s.prompt_token_ids != a.prompt_token_ids for s, a in zip(others, answers, strict=True))
    # One prompt alone has no strangers; among others it has, although its minibatch is its own.
    assert strangers(answers[:2]) == []
    assert all(s.prompt_token_ids == answers[2].prompt_token_ids for s in strangers(answers[:2], answers))


def test_kto_learns_nothing_from_one_prompt_and_says_so(tiny_model):
    made = trainer(tiny_model, "kto")
    assert made.update(selection(groups=1)) == {}
    assert made.update(selection(groups=2))["z0"] >= 0


@pytest.mark.parametrize("name", [n for n in TABLE if not TABLE[n].gradient_coefficient.needs & {"values"}])
def test_the_learners_own_batch_has_the_papers_gradient(name):
    """From a selection with pairs, roles and rewards, as samplers make them: what the learner averages over is what
    the paper does, whether or not the sampler happened to draw pairs."""
    given = random_batch(4)
    sizes = given.lengths.tolist()
    made = Selection()
    for i, n in enumerate(sizes):
        marks = {"role": int(given.role[i]), "baseline": float(given.baseline[i])}
        marks["from_reference"] = bool(given.from_reference[i])
        made.add(answer(str(i), tuple(range(n))), float(given.reward[i]), int(given.group[i]), **marks)
    made.pairs = [Pair(i, i + 1) for i in range(0, len(sizes), 2)]
    paired = "pairs" in TABLE[name].gradient_coefficient.needs
    batch = token_batch(made, given.old, given.old, given.reference, None, given.max_tokens, paired)
    measured = {"mismatched": given.mismatched, "reference_kl": given.reference_kl, "logprobs": given.logprobs}
    found = token_gradient(TABLE[name], prepared(TABLE[name], replace(batch, **measured)))
    leaf, kl_leaf = given.logprobs.clone().requires_grad_(), given.reference_kl.clone().requires_grad_()
    loss = LOSSES[name](data_of(given, leaf, kl_leaf), False)
    assert torch.allclose(found.gradient, -torch.autograd.grad(loss, leaf)[0], atol=1e-10)


def test_the_critic_learns_returns_and_leaves_the_policy_alone(toy_model):
    made, data = trainer(toy_model, "ppo", critic_learning_rate=0.05, learning_rate=1e-12, epochs=20), selection()
    policy = torch.cat([p.detach().flatten() for p in made.model.parameters]).clone()
    before = made.model.logprobs(data.completions)
    losses = [made.update(data)["value_loss"] for _ in range(10)]
    assert losses[-1] < losses[0] / 2
    assert torch.allclose(torch.cat([p.detach().flatten() for p in made.model.parameters]), policy, atol=1e-9)
    assert torch.allclose(made.model.logprobs(data.completions), before, atol=1e-7)
    values = made.critic.values(data.completions)
    ends = torch.tensor([len(c.token_ids) for c in data.completions]).cumsum(0) - 1
    good = torch.tensor(data.rewards) == 1
    assert values[ends][good].mean() > values[ends][~good].mean() + 0.1


def test_an_entropy_bonus_flattens_the_distribution(toy_model):
    def entropy(made: Trainer) -> float:
        with torch.no_grad():
            p = made.model.peft(input_ids=torch.tensor([[1, 5, 9]])).logits[0, -1].log_softmax(-1)
        return float(-(p.exp() * p).sum())

    flat, plain = (trainer(toy_model, "grpo", entropy=e) for e in (1.0, 0.0))
    for made in (flat, plain):
        for _ in range(5):
            made.update(selection())
    assert entropy(flat) > entropy(plain) + 0.5


def test_later_passes_learn_from_what_they_keep(tiny_model):
    """Two passes, the second over one completion alone: the same as two updates on those selections."""
    once, twice = (trainer(tiny_model, "rft", epochs=e) for e in (2, 1))
    data = selection()
    once.update(replace(data, pairs=[], passes=[list(range(len(data.completions))), [4]]))
    twice.update(replace(data, pairs=[]))
    one = Selection()
    one.add(data.completions[4], 1.0, 0)
    twice.update(one)
    for a, b in zip(once.model.parameters, twice.model.parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_star_begins_every_iteration_at_the_base(tiny_model):
    made, again = trainer(tiny_model, "star", epochs=2), trainer(tiny_model, "star", epochs=2)
    for data in (selection(seed=1), selection(seed=2)):
        made.update(replace(data, pairs=[]))
    again.update(replace(selection(seed=2), pairs=[]))
    for a, b in zip(made.model.parameters, again.model.parameters, strict=True):
        assert torch.equal(a, b)
    # Control: a method that does not restart goes on from where it stood.
    first, second = trainer(tiny_model, "rft"), trainer(tiny_model, "rft")
    for data in (selection(seed=1), selection(seed=2)):
        first.update(replace(data, pairs=[]))
    second.update(replace(selection(seed=2), pairs=[]))
    assert not all(torch.equal(a, b) for a, b in zip(first.model.parameters, second.model.parameters, strict=True))
