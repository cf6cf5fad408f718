"""From rewards to advantages, within groups. A group is one prompt's completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

STD_EPSILON = 1e-4
"""Added to the standard deviation (TRL's value). A tiny one would turn float noise into advantages of one."""


def group_mean(batch: TokenBatch, reward: Tensor) -> Tensor:
    """[S] mean reward of each sequence's group."""
    groups = int(batch.group.max()) + 1
    total = reward.new_zeros(groups).index_add(0, batch.group, reward)
    count = reward.new_zeros(groups).index_add(0, batch.group, reward.new_ones(len(reward)))
    return (total / count)[batch.group]


def centred(batch: TokenBatch, reward: Tensor) -> Tensor:
    """[S] r - mean: Dr. GRPO's advantage (arXiv:2503.20783)."""
    return reward - group_mean(batch, reward)


def standardised(batch: TokenBatch, reward: Tensor) -> Tensor:
    """[S] (r - mean) / (std + eps): GRPO's advantage (arXiv:2402.03300). Bessel-corrected, as TRL, verl and oat do.

    A group of one has no spread: its advantage is zero.
    """
    centre = centred(batch, reward)
    groups = int(batch.group.max()) + 1
    squares = reward.new_zeros(groups).index_add(0, batch.group, centre.square())
    count = reward.new_zeros(groups).index_add(0, batch.group, reward.new_ones(len(reward)))
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    return centre / (std[batch.group] + STD_EPSILON)


ADVANTAGES = {"standardised": standardised, "centred": centred}


def overlong_penalty(lengths: Tensor, max_tokens: int, fraction: float) -> Tensor:
    """[S] DAPO's soft overlong punishment (arXiv:2503.14476 eq. 13), in [-1, 0].

    With L = max_tokens and C = fraction * L: zero up to L - C tokens, then (L - C - n) / C down to -1 at L.
    DAPO uses L 20480 and C 4096: a fraction of 0.2.
    """
    cache = fraction * max_tokens
    return ((max_tokens - cache - lengths) / cache).clamp(-1.0, 0.0)
