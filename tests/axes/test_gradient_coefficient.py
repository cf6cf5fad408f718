"""Every coefficient against a hand-computed number, and against autograd on the textbook loss (float64)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient import MISMATCH, Constant, Dpo, Grpo, PerSequence, PerToken, SequenceSum, Sft
from iterpo.gradient_coefficient.advantage import overlong_penalty, standardised
from tests.axes.builders import batch, pair_batch

EXACT = 1e-12


def randn(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ours(coefficient, normalizer, given) -> torch.Tensor:
    """The gradient with respect to the log-probs that the algorithm-blind backward takes."""
    return -coefficient(given) * normalizer(given)


def textbook(loss, logprobs: torch.Tensor) -> torch.Tensor:
    leaf = logprobs.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def grpo_loss(given, clip_low, clip_high, beta):
    """Clipped surrogate with a k3 KL, per sequence, written as the paper writes it."""

    def loss(logprobs):
        advantage = given.spread(standardised(given, given.reward))
        ratio = (logprobs - given.old).exp()
        surrogate = torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip_low, 1 + clip_high))
        kl = (given.reference - logprobs).exp() - 1 - (given.reference - logprobs)
        per_token = surrogate - beta * kl
        return -(given.sequence_sum(per_token) / given.lengths).mean()

    return loss


def test_grpo_equals_the_gradient_of_the_papers_loss():
    given = batch((3, 4, 2), reward=torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64))
    given = replace(given, logprobs=randn(9), old=randn(9) * 0.3 + randn(9, 1) * 0.3, reference=randn(9, 2))
    expected = textbook(grpo_loss(given, 0.2, 0.28, 0.04), given.logprobs)
    found = ours(Grpo(clip_low=0.2, clip_high=0.28, beta=0.04), PerSequence(), given)
    assert torch.allclose(found, expected, atol=EXACT)


def test_without_the_clip_the_gradient_is_another_one():
    """Negative control: the test above can fail."""
    given = batch((3, 4, 2), reward=torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64))
    given = replace(given, logprobs=randn(9), old=randn(9, 1), reference=randn(9, 2))
    expected = textbook(grpo_loss(given, 0.2, 0.2, 0.0), given.logprobs)
    found = ours(Grpo(clip_low=0.999, clip_high=1e9, beta=0.0), PerSequence(), given)
    assert not torch.allclose(found, expected, atol=1e-3)


def test_grpo_by_hand():
    """Rewards 0 and 1: mean 1/2, Bessel std sqrt(1/2); on-policy, so every ratio is one."""
    given = batch((1, 1), reward=torch.tensor([0.0, 1.0], dtype=torch.float64))
    advantage = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert Grpo(beta=0.0)(given).tolist() == pytest.approx([-advantage, advantage])


def test_advantages_never_cross_groups():
    rewards = torch.tensor([0.0, 1.0, 5.0, 6.0], dtype=torch.float64)
    given = batch((1, 1, 1, 1), reward=rewards, group=torch.tensor([0, 0, 1, 1]))
    assert Grpo("centred", beta=0.0)(given).tolist() == [-0.5, 0.5, -0.5, 0.5]


def test_equal_rewards_give_no_gradient_however_small_their_noise():
    given = batch((2, 2), reward=torch.tensor([0.3, 0.3 + 1e-9], dtype=torch.float64))
    assert Grpo(beta=0.0)(given).abs().max() < 1e-4


def test_a_positive_advantage_is_clipped_above_only_and_a_negative_one_below_only():
    logprobs = torch.tensor([0.5, -0.5, 0.5, -0.5], dtype=torch.float64)
    given = batch((2, 2), reward=torch.tensor([1.0, 0.0], dtype=torch.float64), logprobs=logprobs)
    assert (Grpo(beta=0.0)(given) == 0).tolist() == [True, False, False, True]


def dpo_loss(given, beta, smoothing=0.0):
    def loss(logprobs):
        ratio = given.sequence_sum(logprobs - given.reference)
        d = beta * (ratio[given.chosen] - ratio[given.rejected])
        return (-(1 - smoothing) * F.logsigmoid(d) - smoothing * F.logsigmoid(-d)).mean()

    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dpo_equals_the_gradient_of_the_papers_loss(smoothing):
    given = replace(pair_batch((3, 4)), logprobs=randn(7), reference=randn(7, 1))
    expected = textbook(dpo_loss(given, 0.1, smoothing), given.logprobs)
    assert torch.allclose(ours(Dpo(0.1, smoothing), SequenceSum(), given), expected, atol=EXACT)


def test_a_label_that_is_sure_by_three_quarters_is_cdpo_with_a_quarter_of_smoothing():
    given = replace(pair_batch((3, 4), p_chosen=0.75), logprobs=randn(7), reference=randn(7, 1))
    sure = replace(given, p_chosen=torch.ones(1, dtype=torch.float64))
    assert torch.allclose(Dpo(0.1)(given), Dpo(0.1, label_smoothing=0.25)(sure), atol=EXACT)


def test_dpo_by_hand():
    """At the reference d is 0 and s(0) is 1/2: the chosen side gets +beta/2 a token, the rejected side -beta/2."""
    zeros = torch.zeros(5, dtype=torch.float64)
    assert Dpo(0.1)(pair_batch((2, 3), reference=zeros)).tolist() == pytest.approx([0.05] * 2 + [-0.05] * 3)


def test_sft_is_the_gradient_of_cross_entropy():
    given = replace(batch((2, 3)), logprobs=randn(5))
    expected = textbook(lambda logprobs: -logprobs.mean(), given.logprobs)
    assert torch.allclose(ours(Sft(), PerToken(), given), expected, atol=EXACT)


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (PerSequence(), [1 / 4] * 2 + [1 / 6] * 3),
        (PerToken(), [1 / 5] * 5),
        (Constant(), [1 / 20] * 5),
        (SequenceSum(), [1 / 2] * 5),
    ],
)
def test_normalisers_by_hand(normalizer, expected):
    """Two sequences of 2 and 3 tokens, at most 10 allowed."""
    assert normalizer(batch((2, 3))).tolist() == pytest.approx(expected)


def test_a_sum_over_pairs_is_averaged_over_pairs():
    assert SequenceSum()(pair_batch((2, 3))).tolist() == [1.0] * 5


def test_the_overlong_penalty_ramps_from_zero_to_minus_one():
    """L 10 and C 2: nothing up to 8 tokens, a half at 9, all of it at 10 (DAPO, equation 13)."""
    assert overlong_penalty(torch.tensor([5, 8, 9, 10]), 10, 0.2).tolist() == pytest.approx([0, 0, -0.5, -1])


def test_the_mismatch_is_capped_by_tis_and_masked_by_mis():
    w = torch.tensor([0.4, 1.0, 3.0, 6.0], dtype=torch.float64)
    given = batch((4,), old=w.log())
    assert MISMATCH["tis"](given).tolist() == pytest.approx([0.4, 1.0, 2.0, 2.0])
    assert MISMATCH["mis"](given).tolist() == pytest.approx([0.0, 1.0, 3.0, 0.0])
    assert MISMATCH["none"](given).tolist() == [1.0] * 4


@pytest.mark.parametrize("wrong", [{"advantage": "best"}, {"clip_low": 1.5}, {"beta": -1.0}])
def test_hyper_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidConfig, match="Use"):
        Grpo(**wrong)
