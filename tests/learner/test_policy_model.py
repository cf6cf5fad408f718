"""The algorithm-blind backward is exact: in float64 it equals autograd on the textbook loss, however it is cut."""

from __future__ import annotations

import random

import pytest
import torch

from iterpo.learner.critic import Critic
from iterpo.learner.policy_model import PolicyModel
from iterpo.run_config import LoraConfig
from iterpo.types import Completion, FinishReason

EXACT = 1e-13


def completions(count: int = 6, temperature: float = 1.0) -> list[Completion]:
    """Of different lengths, with random token ids."""
    draw = random.Random(7)
    made = []
    for i in range(count):
        prompt = tuple(draw.randrange(3, 64) for _ in range(2 + i % 3))
        tokens = tuple(draw.randrange(3, 64) for _ in range(3 + i))
        made.append(
            Completion(str(i), "p", "g", "", prompt, tokens, (), FinishReason.STOP, 0, "", temperature=temperature)
        )
    return made


def model(path, budget: int = 4096, dtype: str = "float64") -> PolicyModel:
    """With an adapter that is not zero: B matrices start at zero, and a zero adapter has no gradient in A."""
    made = PolicyModel(path, LoraConfig(r=4, alpha=8), seed=0, budget=budget, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.1)
    return made


def gradient(made: PolicyModel) -> torch.Tensor:
    flat = torch.cat([p.grad.flatten() for p in made.parameters])
    for parameter in made.parameters:
        parameter.grad = None
    return flat


def plain_logprobs(made: PolicyModel, answers) -> torch.Tensor:
    """One sequence at a time, through the whole model and an ordinary log-softmax."""
    parts = []
    for c in answers:
        ids = torch.tensor([c.prompt_token_ids + c.token_ids])
        logits = made.peft(input_ids=ids).logits[0, :-1] / c.temperature
        chosen = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        parts.append(chosen[len(c.prompt_token_ids) - 1 :])
    return torch.cat(parts)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_the_whole_models(tiny_model, temperature):
    made, answers = model(tiny_model), completions(temperature=temperature)
    assert torch.allclose(made.logprobs(answers), plain_logprobs(made, answers), atol=EXACT)


def test_the_backward_equals_autograd_on_the_weighted_sum(tiny_model):
    made, answers = model(tiny_model), completions(temperature=0.8)
    weights = torch.randn(sum(len(c.token_ids) for c in answers), dtype=torch.float64)
    made.backward(answers, weights)
    found = gradient(made)
    (-(weights * plain_logprobs(made, answers)).sum()).backward()
    expected = gradient(made)
    assert torch.allclose(found, expected, atol=EXACT)
    assert expected.abs().max() > 1e-3  # negative control: there was something to get wrong


@pytest.mark.parametrize("budget", [1, 20, 50, 4096])
def test_any_micro_batching_gives_the_same_gradient(tiny_model, budget):
    answers = completions()
    weights = torch.randn(sum(len(c.token_ids) for c in answers), dtype=torch.float64)
    whole, cut = model(tiny_model), model(tiny_model, budget)
    whole.backward(answers, weights)
    cut.backward(answers, weights)
    assert torch.allclose(gradient(cut), gradient(whole), atol=EXACT)


def test_in_float32_micro_batching_stays_within_rounding(tiny_model):
    answers = completions()
    weights = torch.randn(sum(len(c.token_ids) for c in answers))
    whole, cut = model(tiny_model, dtype="float32"), model(tiny_model, 20, dtype="float32")
    whole.backward(answers, weights)
    cut.backward(answers, weights)
    assert torch.allclose(gradient(cut), gradient(whole), atol=1e-5)


def test_the_kl_to_the_base_is_exact_and_zero_without_an_adapter(tiny_model):
    made, answers = model(tiny_model), completions()
    with torch.no_grad():
        total, count = 0.0, 0
        for c in answers:
            ids = torch.tensor([c.prompt_token_ids + c.token_ids])
            p = made.peft(input_ids=ids).logits[0].log_softmax(-1)
            with made.base():
                q = made.peft(input_ids=ids).logits[0].log_softmax(-1)
            rows = slice(len(c.prompt_token_ids) - 1, -1)
            total += float((p.exp() * (p - q)).sum(-1)[rows].sum())
            count += len(c.token_ids)
    assert made.kl(answers) == pytest.approx(total / count, abs=1e-12)
    fresh = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, budget=4096, dtype="float64")
    assert fresh.kl(answers) == 0


def test_the_merged_form_is_the_same_policy_up_to_rounding_and_leaves_the_base_untouched(tiny_model):
    made, answers = model(tiny_model), completions()
    before = made.logprobs(answers)
    with made.base():
        base = made.logprobs(answers)
    with made.merged():
        merged = made.logprobs(answers)
    assert torch.allclose(merged, before, atol=1e-6)  # the update itself is computed in float32
    assert not torch.allclose(merged, base, atol=1e-3)
    assert torch.equal(made.logprobs(answers), before)


def distributions(made: PolicyModel, answers) -> torch.Tensor:
    """[B, vocabulary] log-probs where each token was drawn, one sequence at a time."""
    parts = []
    for c in answers:
        ids = torch.tensor([c.prompt_token_ids + c.token_ids])
        logits = made.peft(input_ids=ids).logits[0, :-1] / c.temperature
        parts.append(logits.log_softmax(-1)[len(c.prompt_token_ids) - 1 :])
    return torch.cat(parts)


def test_the_kl_of_the_reference_to_the_policy_and_its_backward_equal_autograd(tiny_model):
    """TDPO's regularizer: -(k KL(base; current)).sum() over the whole vocabulary, one weight a token."""
    made, answers = model(tiny_model, budget=20), completions(temperature=0.8)
    count = sum(len(c.token_ids) for c in answers)
    weights = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), made.base():
        q = distributions(made, answers)
    kl = (q.exp() * (q - distributions(made, answers))).sum(-1)
    assert torch.allclose(made.reference_kl(answers), kl.detach(), atol=EXACT)
    (-(weights * kl).sum()).backward()
    expected = gradient(made)
    made.backward(answers, torch.zeros(count, dtype=torch.float64), reference_kl=weights)
    assert torch.allclose(gradient(made), expected, atol=EXACT)
    assert expected.abs().max() > 1e-3


def test_the_entropy_bonus_equals_autograd(tiny_model):
    made, answers = model(tiny_model, budget=20), completions(temperature=0.8)
    p = distributions(made, answers)
    (-0.3 * -(p.exp() * p).sum()).backward()
    expected = gradient(made)
    made.backward(answers, torch.zeros(len(p), dtype=torch.float64), entropy=0.3)
    assert torch.allclose(gradient(made), expected, atol=EXACT)
    assert expected.abs().max() > 1e-4


def critic(made: PolicyModel) -> Critic:
    """With weights that are not zero."""
    found = Critic(made)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in found.parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.1)
    return found


def test_a_critics_values_and_backward_equal_autograd_however_they_are_cut(tiny_model):
    made, answers = model(tiny_model, budget=20), completions()
    found = critic(made)
    count = sum(len(c.token_ids) for c in answers)
    slopes = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    parts = []
    with made.using("critic"):
        for c in answers:
            ids = torch.tensor([c.prompt_token_ids + c.token_ids])[:, :-1]
            hidden = made.decoder(input_ids=ids).last_hidden_state[0, len(c.prompt_token_ids) - 1 :]
            parts.append(hidden @ found.parameters[-1][:-1] + found.parameters[-1][-1])
        plain = torch.cat(parts)
        expected = torch.autograd.grad((slopes * plain).sum(), found.parameters)
    assert torch.allclose(found.values(answers), plain.detach(), atol=EXACT)
    found.backward(answers, slopes)
    for parameter, wanted in zip(found.parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=EXACT)


def test_a_critic_beside_the_policy_changes_none_of_its_numbers(tiny_model):
    alone, made, answers = model(tiny_model), model(tiny_model), completions()
    found = critic(made)
    assert torch.equal(made.logprobs(answers), alone.logprobs(answers))
    found.backward(answers, torch.ones(sum(len(c.token_ids) for c in answers), dtype=torch.float64))
    assert all(p.grad is None for p in made.parameters)
    assert len(made.parameters) == len(alone.parameters)
    weights = torch.ones(sum(len(c.token_ids) for c in answers), dtype=torch.float64)
    alone.backward(answers, weights)
    made.backward(answers, weights)
    assert torch.equal(gradient(made), gradient(alone))
    assert made.adapter().keys() == alone.adapter().keys()
    with made.merged():
        merged = made.logprobs(answers)
    assert torch.allclose(merged, alone.logprobs(answers), atol=1e-6)
