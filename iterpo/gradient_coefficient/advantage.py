"""From rewards to advantages, one a token. A group is one prompt's completions.

Every function maps (batch, reward [S]) to [B]. A KL penalty that stands in the reward (`batch.penalty`) is summed over
the sequence, except where the method says how it falls on tokens (REINFORCE++, PPO).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iterpo.errors import InvalidInput
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

STD_EPSILON = 1e-4
"""Added to the standard deviation (TRL's value). A tiny one would turn float noise into advantages of one."""
WHITEN_EPSILON = 1e-8
"""Added to the variance of a whole batch (TRL, verl and OpenRLHF)."""
PASS_EPSILON = 1e-6
"""Added to the deviation of pass@k (METHODS section 3)."""


def group_sum(batch: TokenBatch, per_sequence: Tensor) -> Tensor:
    """[S] sum over each sequence's group."""
    groups = int(batch.group.max()) + 1
    return per_sequence.new_zeros(groups).index_add(0, batch.group, per_sequence)[batch.group]


def group_size(batch: TokenBatch) -> Tensor:
    """[S] completions in each sequence's group."""
    return group_sum(batch, batch.reward.new_ones(len(batch.reward)))


def group_mean(batch: TokenBatch, reward: Tensor) -> Tensor:
    """[S] mean reward of each sequence's group."""
    return group_sum(batch, reward) / group_size(batch)


def penalised(batch: TokenBatch, reward: Tensor) -> Tensor:
    """[S] the reward less its sequence's KL penalty."""
    return reward if batch.penalty is None else reward - batch.sequence_sum(batch.penalty)


def raw(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r: no baseline."""
    return batch.spread(penalised(batch, reward))


def batch_centred(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r - mean over the batch: REINFORCE with the simplest baseline."""
    total = penalised(batch, reward)
    return batch.spread(total - total.mean())


def centred(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r - mean: Dr. GRPO's (arXiv:2503.20783)."""
    total = penalised(batch, reward)
    return batch.spread(total - group_mean(batch, total))


def standardised(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = (r - mean) / (std + eps): GRPO's (arXiv:2402.03300). Bessel-corrected, as TRL, verl and oat do.

    A group of one has no spread: its advantage is zero.
    """
    total = penalised(batch, reward)
    centre = total - group_mean(batch, total)
    std = (group_sum(batch, centre.square()) / (group_size(batch) - 1).clamp(min=1)).sqrt()
    return batch.spread(centre / (std + STD_EPSILON))


def leave_one_out(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r_i - mean of the others = G/(G-1) (r_i - mean): RLOO's (arXiv:2402.14740)."""
    total = penalised(batch, reward)
    size = group_size(batch)
    return batch.spread((total - group_mean(batch, total)) * size / (size - 1).clamp(min=1))


def over_baseline(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r - what the response sampler measured: ReMax with the greedy answer's reward (arXiv:2310.10505)."""
    if batch.baseline is None:
        raise InvalidInput("This advantage needs a baseline.", "Use a response sampling that measures one.")
    return batch.spread(penalised(batch, reward) - batch.baseline)


def length_weighted(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = r - sum(n r) / sum(n): OPO's variance-optimal baseline (arXiv:2505.23585)."""
    total, n = penalised(batch, reward), batch.lengths.to(reward.dtype)
    return batch.spread(total - group_sum(batch, n * total) / group_sum(batch, n))


def rescaled(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A = B/nnz(r) (r - mean): GPG as verl has it, which counts non-zero rewards. The paper (arXiv:2504.02546) scales
    by the share of samples whose group is not uniform instead."""
    total = penalised(batch, reward)
    scale = len(reward) / max(1, int(reward.count_nonzero()))
    return batch.spread(scale * (total - group_mean(batch, total)))


def whiten(per_token: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) over all tokens of the batch; unbiased, as TRL and verl do."""
    centre = per_token - per_token.mean()
    variance = centre.square().sum() / max(1, len(per_token) - 1)
    return centre / (variance + WHITEN_EPSILON).sqrt()


def to_go(batch: TokenBatch, per_token: Tensor) -> Tensor:
    """[B] sum over the tokens from each one to its sequence's end."""
    through = per_token.cumsum(0)
    ends = (batch.lengths.cumsum(0) - 1).clamp(min=0)
    return through[ends][batch.sequence] - through + per_token


def whitened(batch: TokenBatch, reward: Tensor) -> Tensor:
    """A_t = r - penalties from t on, whitened over the batch's tokens: REINFORCE++ (arXiv:2501.03262)."""
    total = batch.spread(reward)
    if batch.penalty is not None:
        total = total - to_go(batch, batch.penalty)
    return whiten(total)


def two_step(batch: TokenBatch, reward: Tensor) -> Tensor:
    """Group mean first, then whitened over the batch's tokens: REINFORCE++ with baseline."""
    return whiten(centred(batch, reward))


def pass_at_k(batch: TokenBatch, reward: Tensor, k: int) -> Tensor:
    """Analytic Pass@k training (METHODS section 3): with N samples of which m are wrong, a right answer is one whose
    reward exceeds 1/2,

        R = 1 - C(m,k)/C(N,k),  sd = sqrt(R (1 - R)) + 1e-6,
        A+ = (1 - R)/sd,  A- = (1 - R - C(m-1,k-1)/C(N-1,k-1))/sd.

    Not verl's `grpo_passk`, which rewards the group's best answer alone. A group of fewer than k (labelers abstained)
    cannot tell pass@k: its advantages are zero.
    """
    right = (reward > 0.5).to(reward.dtype)
    n, wrong = group_size(batch), group_size(batch) - group_sum(batch, right)
    r = 1 - _ratio_of_choices(wrong, n, k)
    deviation = (r * (1 - r)).clamp(min=0).sqrt() + PASS_EPSILON
    negative = 1 - r - _ratio_of_choices(wrong - 1, n - 1, k - 1)
    advantage = ((1 - r) * right + negative * (1 - right)) / deviation
    return batch.spread(advantage * (n >= k))


def _ratio_of_choices(m: Tensor, n: Tensor, k: int) -> Tensor:
    """C(m,k) / C(n,k) as a product, which is 0 as soon as m < k."""
    ratio = n.new_ones(n.shape)
    for i in range(k):
        ratio = ratio * (m - i).clamp(min=0) / (n - i).clamp(min=1)
    return ratio


ADVANTAGES: dict[str, Callable[[TokenBatch, Tensor], Tensor]] = {
    "raw": raw,
    "batch_centred": batch_centred,
    "centred": centred,
    "standardised": standardised,
    "leave_one_out": leave_one_out,
    "over_baseline": over_baseline,
    "length_weighted": length_weighted,
    "rescaled": rescaled,
    "whitened": whitened,
    "two_step": two_step,
}
NEED_A_GROUP = frozenset({"centred", "standardised", "leave_one_out", "length_weighted", "rescaled", "two_step"})
"""Advantages with a group baseline: a group of one teaches nothing."""


def overlong_penalty(lengths: Tensor, max_tokens: int, fraction: float) -> Tensor:
    """[S] DAPO's soft overlong punishment (arXiv:2503.14476 eq. 13), in [-1, 0].

    With L = max_tokens and C = fraction * L: zero up to L - C tokens, then (L - C - n) / C down to -1 at L.
    DAPO uses L 20480 and C 4096: a fraction of 0.2.
    """
    cache = fraction * max_tokens
    return ((max_tokens - cache - lengths) / cache).clamp(-1.0, 0.0)


def generalised(batch: TokenBatch, token_reward: Tensor, gamma: float, lam: Tensor) -> Tensor:
    """[B] GAE (arXiv:1506.02438): delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}.

    `lam` is [S]. The value after a sequence's last token is zero: completions end their episode, truncated ones too.
    """
    if batch.values is None:
        raise InvalidInput("GAE needs the critic's values.", "Use an algorithm with a critic (ppo, vapo).")
    wide = _padded(batch, token_reward), _padded(batch, batch.values)
    reward, value = wide
    advantage = reward.new_zeros(reward.shape)
    after_value, after = reward.new_zeros(len(reward)), reward.new_zeros(len(reward))
    for t in range(reward.shape[1] - 1, -1, -1):
        inside = (batch.lengths > t).to(reward.dtype)
        delta = reward[:, t] + gamma * after_value - value[:, t]
        after = inside * (delta + gamma * lam * after)
        after_value = inside * value[:, t]
        advantage[:, t] = after
    return advantage[batch.sequence, batch.position]


def _padded(batch: TokenBatch, per_token: Tensor) -> Tensor:
    """[B] -> [S, longest], zeros at the end."""
    wide = per_token.new_zeros(len(batch.lengths), int(batch.lengths.max()))
    wide[batch.sequence, batch.position] = per_token
    return wide
