"""Hand-computed numbers, laws, and what is orthogonal to the methods. Every method against its paper's loss stands in
test_against_the_papers.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from iterpo.algorithms import TABLE, resolve
from iterpo.errors import InvalidConfig
from iterpo.gradient import objective, prepared, token_gradient
from iterpo.gradient_coefficient import (
    MISMATCH,
    Constant,
    Dpo,
    Grpo,
    Kl,
    Kto,
    Orpo,
    PerSequence,
    PerToken,
    Ppo,
    Rloo,
    SequenceSum,
    Simpo,
    off_policy_mask,
)
from iterpo.gradient_coefficient.advantage import generalised, overlong_penalty, pass_at_k, to_go
from iterpo.regularizers import ClippedValueLoss
from iterpo.run_config import RunConfig
from tests.axes.builders import batch, pair_batch, random_batch

EXACT = 1e-12


def wide(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# By hand


def test_grpo_by_hand():
    """Rewards 0 and 1: mean 1/2, Bessel std sqrt(1/2); on-policy, so every ratio is one."""
    given = batch((1, 1), reward=wide(0.0, 1.0))
    advantage = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert Grpo()(given).tolist() == pytest.approx([-advantage, advantage])


def test_dpo_by_hand():
    """At the reference d is 0 and s(0) is 1/2: the chosen side gets +beta/2 a token, the rejected side -beta/2."""
    zeros = torch.zeros(5, dtype=torch.float64)
    assert Dpo(0.1)(pair_batch((2, 3), reference=zeros)).tolist() == pytest.approx([0.05] * 2 + [-0.05] * 3)


def test_simpo_by_hand():
    """Both answers at -1 a token: m = -gamma = -1, s(1) = 0.7310586; c = beta s(1) / n with beta 2."""
    given = pair_batch((1, 2), logprobs=-torch.ones(3, dtype=torch.float64))
    expected = 2 * 0.7310585786300049
    assert Simpo(2.0, 0.5)(given).tolist() == pytest.approx([expected, -expected / 2, -expected / 2])


def test_orpo_by_hand():
    """p = 1/2 on both sides: s(0) = 1/2 and 1/(1-p) = 2; chosen 1/1 + lam * 1/2 * 2, rejected -lam * 1/2 * 2."""
    given = pair_batch((1, 1), logprobs=wide(math.log(0.5), math.log(0.5)))
    assert Orpo(0.1)(given).tolist() == pytest.approx([1.1, -0.1])


def test_rloo_by_hand():
    """Rewards 1, 0, 0: each less the mean of the others is 1, -1/2, -1/2."""
    assert Rloo()(batch((1, 1, 1), reward=wide(1, 0, 0))).tolist() == pytest.approx([1, -0.5, -0.5])


def test_kto_by_hand():
    """D = 0 and z0 = 0: s(0) s(0) = 1/4, so c = beta / 4 upwards for the good answer and downwards for the bad one."""
    given = batch((1, 1), reference=torch.zeros(2, dtype=torch.float64), role=torch.tensor([1, -1]))
    assert Kto(0.1)(replace(given, mismatched=wide(-3.0))).tolist() == pytest.approx([0.025, -0.025])


def test_gae_by_hand():
    """Two tokens, values 1 and 2, reward 3 at the end, gamma 1, lambda 1/2: delta_2 = 3 - 2 = 1, delta_1 = 2 - 1 = 1,
    A_2 = 1 and A_1 = 1 + 1/2."""
    given = batch((2,), values=wide(1, 2))
    assert generalised(given, wide(0, 3), 1.0, wide(0.5)).tolist() == [1.5, 1.0]


def test_returns_are_taken_before_advantages_are_whitened():
    given = batch((2, 1), values=wide(1, 2, 0), reward=wide(3, 0))
    ppo = Ppo(lam=1.0)
    assert ppo.returns(given).tolist() == [3, 3, 0]
    assert ppo.advantages(given).mean().abs() < EXACT
    assert ppo.advantages(given).std() == pytest.approx(1.0, abs=1e-6)


def test_the_value_of_what_follows_a_sequence_is_not_the_next_sequences():
    """Two answers of one token each: the first one's advantage does not see the second one's value."""
    given = batch((1, 1), values=wide(0, 100), reward=wide(1, 1))
    assert Ppo(whitened=False).advantages(given).tolist() == [1, -99]


def test_pass_at_one_half_of_the_group_by_hand():
    """N = 4, m = 2 wrong, k = 2: R = 1 - C(2,2)/C(4,2) = 5/6, sd = sqrt(5)/6; A+ = (1/6)/sd and
    A- = (1/6 - C(1,1)/C(3,1))/sd."""
    found = pass_at_k(batch((1, 1, 1, 1), reward=wide(1, 1, 0, 0)), wide(1, 1, 0, 0), 2)
    deviation = math.sqrt(5) / 6 + 1e-6
    assert found.tolist() == pytest.approx([1 / 6 / deviation] * 2 + [(1 / 6 - 1 / 3) / deviation] * 2)


def test_a_group_too_small_for_pass_at_k_has_no_advantage_and_ends_no_run():
    """Labelers abstained on two of four answers; k is 3."""
    given = batch((1, 1), reward=wide(1, 0))
    assert pass_at_k(given, given.reward, 3).tolist() == [0, 0]


def test_orpo_stays_finite_for_answers_that_are_certain():
    given = pair_batch((1, 1), logprobs=wide(0.0, 0.0))
    assert Orpo()(given).isfinite().all()
    assert Orpo().objective(given).isfinite().all()


def test_vapos_clip_fraction_is_that_of_its_policy_gradient():
    """A right answer far beyond the clip is clipped, although its imitation term is not zero."""
    given = batch((1, 1), reward=wide(1, 0), logprobs=wide(2.0, 0.0), values=wide(0, 0))
    assert Ppo(positive_nll=0.1)(given)[0] == pytest.approx(0.1)
    assert Ppo(positive_nll=0.1).metrics(given)["clip_fraction"] == 0.5


def test_the_sum_to_go_ends_with_its_sequence():
    assert to_go(batch((2, 3)), wide(1, 2, 3, 4, 5)).tolist() == [3, 2, 12, 9, 5]


# Laws


def test_advantages_never_cross_groups():
    given = batch((1, 1, 1, 1), reward=wide(0, 1, 5, 6), group=torch.tensor([0, 0, 1, 1]))
    assert Grpo("centred")(given).tolist() == [-0.5, 0.5, -0.5, 0.5]


def test_equal_rewards_give_no_gradient_however_small_their_noise():
    given = batch((2, 2), reward=wide(0.3, 0.3 + 1e-9))
    assert Grpo()(given).abs().max() < 1e-4


def test_a_positive_advantage_is_clipped_above_only_and_a_negative_one_below_only():
    given = batch((2, 2), reward=wide(1, 0), logprobs=wide(0.5, -0.5, 0.5, -0.5))
    assert (Grpo()(given) == 0).tolist() == [True, False, False, True]


def test_dual_clip_stops_a_bad_answer_that_became_likely():
    given = batch((1, 1), reward=wide(1, 0), logprobs=wide(0.0, math.log(4)))
    assert (Grpo(dual_clip=3.0)(given) == 0).tolist() == [False, True]
    assert (Grpo()(given) == 0).tolist() == [False, False]


def test_a_label_that_is_sure_by_three_quarters_is_cdpo_with_a_quarter_of_smoothing():
    given = random_batch(1)
    unsure = replace(given, p_chosen=0.75 * torch.ones(len(given.chosen), dtype=torch.float64))
    assert torch.allclose(Dpo(0.1)(unsure), Dpo(0.1, label_smoothing=0.25)(given), atol=EXACT)


def test_a_part_of_a_batch_is_the_batch_of_those_sequences():
    given = random_batch(2, soft=True)
    part = given.part([4, 5, 6, 7])
    tokens = (given.group == 1)[given.sequence]
    assert torch.equal(part.logprobs, given.logprobs[tokens])
    assert torch.equal(part.p_chosen, given.p_chosen[2:4])
    assert (part.chosen.tolist(), part.rejected.tolist()) == ([0, 2], [1, 3])
    assert torch.equal(part.position, given.position[tokens])


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp", "ppo", "rloo"])
def test_minibatches_take_their_advantages_from_the_whole_batch(name):
    """Invariant 5: coefficients of a part are the whole's, however the batch is cut."""
    whole = prepared(TABLE[name], random_batch(0))
    coefficients = token_gradient(TABLE[name], whole).coefficients
    part = [4, 5, 6, 7]
    tokens = (whole.group == 1)[whole.sequence]
    assert torch.allclose(token_gradient(TABLE[name], whole.part(part)).coefficients, coefficients[tokens], atol=EXACT)
    if name in ("reinforce_pp", "ppo"):  # control: whitened over the part alone, they are others
        alone = token_gradient(TABLE[name], replace(whole.part(part), advantage=None)).coefficients
        assert not torch.allclose(alone, coefficients[tokens], atol=1e-3)


# Beside the methods


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


@pytest.mark.parametrize("estimator", ["k2", "k3", "ratio_k3"])
def test_each_kl_in_the_coefficient_is_the_derivative_of_its_estimate(estimator):
    algorithm = resolve(RunConfig(algorithm="grpo", kl={"beta": 0.3, "estimator": estimator}))
    given = prepared(algorithm, random_batch(3))
    leaf = given.logprobs.clone().requires_grad_()
    x = leaf - given.reference
    value = {"k2": x**2 / 2, "k3": (-x).exp() - 1 + x, "ratio_k3": (leaf - given.old).exp() * ((-x).exp() - 1 + x)}
    weights = PerSequence()(given)
    expected = -0.3 * torch.autograd.grad((weights * value[estimator]).sum(), leaf)[0]
    without = token_gradient(replace(algorithm, kl=Kl()), given).gradient
    assert torch.allclose(token_gradient(algorithm, given).gradient - without, expected, atol=EXACT)


def test_on_policy_k2_and_ratio_k3_pull_along_the_reverse_kl_and_k3_along_the_forward_one():
    """METHODS' law, exactly: expectations over a distribution of four tokens, gradients by its logits."""
    logits = wide(0.3, -0.2, 1.0, 0.1).requires_grad_()
    ref = wide(0.1, 0.4, 0.2, 0.3).log()
    p = logits.log_softmax(0)

    def expected_gradient(estimator: str) -> torch.Tensor:
        """E_{y ~ pi} c(y) grad log pi(y), by summing over all tokens."""
        given = batch((4,), logprobs=p.detach(), old=p.detach(), reference=ref)
        c = Kl(1.0, estimator).coefficient(given)
        return torch.autograd.grad((p.detach().exp() * c * p).sum(), logits, retain_graph=True)[0]

    reverse = torch.autograd.grad(-(p.exp() * (p - ref)).sum(), logits, retain_graph=True)[0]
    forward = torch.autograd.grad(-(ref.exp() * (ref - p)).sum(), logits, retain_graph=True)[0]
    assert torch.allclose(expected_gradient("k2"), reverse, atol=EXACT)
    assert torch.allclose(expected_gradient("ratio_k3"), reverse, atol=EXACT)
    assert torch.allclose(expected_gradient("k3"), forward, atol=EXACT)
    assert not torch.allclose(reverse, forward, atol=1e-3)


def test_a_kl_in_the_reward_moves_the_advantage_and_not_the_coefficient():
    """Two answers of one token, rewards equal, the first one nat above its reference: beta 1/2 takes half a point."""
    same = dict.fromkeys(("logprobs", "old", "behaviour"), wide(-1, -1))
    given = batch((1, 1), reward=wide(1, 1), reference=wide(-2, -1), **same)
    algorithm = replace(TABLE["dr_grpo"], kl=Kl(0.5, "k1", "reward"))
    assert token_gradient(algorithm, prepared(algorithm, given)).coefficients.tolist() == [-0.25, 0.25]


def test_the_mismatch_is_capped_by_tis_and_masked_by_mis():
    w = wide(0.4, 1.0, 3.0, 6.0)
    given = batch((4,), old=w.log())
    assert MISMATCH["tis"](given).tolist() == pytest.approx([0.4, 1.0, 2.0, 2.0])
    assert MISMATCH["mis"](given).tolist() == pytest.approx([0.0, 1.0, 3.0, 0.0])
    assert MISMATCH["none"](given).tolist() == [1.0] * 4


def test_sequence_corrections_look_at_the_whole_answer():
    """Ratios 2 x 1 = 2 and 2 x 2 = 4 of two answers; the cap is 3."""
    given = batch((2, 2), old=wide(2, 1, 2, 2).log())
    assert MISMATCH["sequence_tis"](given).tolist() == pytest.approx([2, 2, 3, 3])
    assert MISMATCH["sequence_mask"](given).tolist() == pytest.approx([2, 2, 0, 0])


def test_the_off_policy_mask_leaves_out_bad_answers_that_the_policy_has_left_behind():
    """The policy is a nat below the sampler on answers 0 and 1; only answer 1 has a negative advantage."""
    given = batch((1, 1, 1), logprobs=wide(-2, -2, -1), behaviour=wide(-1, -1, -1))
    assert off_policy_mask(given, wide(1, -1, -1), 0.5).tolist() == [1, 0, 1]


def test_a_correction_multiplies_the_policy_gradient_and_not_the_kl():
    given = replace(random_batch(0), behaviour=random_batch(0).old - math.log(1.5))
    with_tis = resolve(RunConfig(algorithm="grpo"))
    without = replace(with_tis, mismatch="none")
    no_kl = replace(without, kl=Kl())
    plain, kl = (token_gradient(a, prepared(a, given)).coefficients for a in (no_kl, without))
    found = token_gradient(with_tis, prepared(with_tis, given)).coefficients
    assert torch.allclose(found, 1.5 * plain + (kl - plain), atol=EXACT)


def test_the_objective_with_correction_and_kl_still_has_the_gradient_that_is_taken():
    algorithm = resolve(RunConfig(algorithm="grpo", off_policy_mask=0.1, kl={"estimator": "ratio_k3"}))
    given = prepared(algorithm, replace(random_batch(0), behaviour=random_batch(0).old - 0.3))
    leaf = given.logprobs.clone().requires_grad_()
    expected = torch.autograd.grad(objective(algorithm, replace(given, logprobs=leaf)), leaf)[0]
    assert torch.allclose(token_gradient(algorithm, given).gradient, expected, atol=EXACT)


def test_the_overlong_penalty_ramps_from_zero_to_minus_one():
    """L 10 and C 2: nothing up to 8 tokens, a half at 9, all of it at 10 (DAPO, equation 13)."""
    assert overlong_penalty(torch.tensor([5, 8, 9, 10]), 10, 0.2).tolist() == pytest.approx([0, 0, -0.5, -1])


def test_the_clipped_value_loss_has_the_gradient_that_the_critic_takes():
    """Near and far from the old values, above and below the returns; autograd on METHODS' formula."""
    old, returns = torch.zeros(8, dtype=torch.float64), wide(1, 1, 1, 1, -1, -1, -1, -1)
    values = wide(0.1, 0.5, -0.5, 2.5, 0.1, 0.5, -0.5, -2.5).requires_grad_()
    loss = ClippedValueLoss(weight=0.1, clip=0.2)
    near = old + (values - old).clamp(-0.2, 0.2)
    textbook = 0.1 * 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2).mean()
    expected = torch.autograd.grad(textbook, values)[0]
    found = loss.gradient(values.detach(), old, returns)
    assert torch.allclose(found, expected, atol=EXACT)
    assert float(loss.loss(values.detach(), old, returns)) == pytest.approx(float(textbook.detach()))
    assert (found == 0).any()
    assert (found != 0).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grpo("best"),
        lambda: Grpo(clip_low=1.5),
        lambda: Kl(-1.0),
        lambda: Kl(estimator="k4"),
        lambda: Dpo(beta=0.0),
        lambda: Ppo(gamma=0.0),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(make):
    with pytest.raises(InvalidConfig, match="Use"):
        make()
