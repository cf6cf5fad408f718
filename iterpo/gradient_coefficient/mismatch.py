"""Correction of the trainer/sampler mismatch: the sampler's numerics are not the trainer's (invariant 7).

w = pi_old(trainer) / pi(sampler) multiplies the policy gradient, not the KL beside it; detached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

TIS_CAP = 2.0
"""Truncated importance sampling's cap (oat, slime and verl use 2)."""
MIS_BOUNDS = (0.5, 5.0)
"""Masked importance sampling keeps tokens whose ratio lies within (OpenRLHF's bounds)."""
SEQUENCE_CAP = 3.0
"""Largest ratio of a whole sequence (TRL's default)."""


def ratio(batch: TokenBatch) -> Tensor:
    """[B] w, unbounded: what is measured and logged."""
    return (batch.old - batch.behaviour).exp()


def sequence_ratio(batch: TokenBatch) -> Tensor:
    """[B] exp of the summed log differences, the same for all tokens of a sequence."""
    return batch.spread(batch.sequence_sum(batch.old - batch.behaviour).exp())


def none(batch: TokenBatch) -> Tensor:
    return batch.logprobs.new_ones(len(batch.logprobs))


def tis(batch: TokenBatch) -> Tensor:
    """min(w, 2)."""
    return ratio(batch).clamp(max=TIS_CAP)


def mis(batch: TokenBatch) -> Tensor:
    """w where it lies in [0.5, 5], else 0."""
    w = ratio(batch)
    low, high = MIS_BOUNDS
    return w * ((w >= low) & (w <= high))


def sequence_tis(batch: TokenBatch) -> Tensor:
    """min(the sequence's ratio, 3)."""
    return sequence_ratio(batch).clamp(max=SEQUENCE_CAP)


def sequence_mask(batch: TokenBatch) -> Tensor:
    """The sequence's ratio up to 3; a sequence beyond it is left out (TRL's default)."""
    w = sequence_ratio(batch)
    return w * (w <= SEQUENCE_CAP)


MISMATCH: dict[str, Callable[[TokenBatch], Tensor]] = {
    "none": none,
    "tis": tis,
    "mis": mis,
    "sequence_tis": sequence_tis,
    "sequence_mask": sequence_mask,
}


def off_policy_mask(batch: TokenBatch, advantage: Tensor, delta: float) -> Tensor:
    """[B] 0 for sequences with a negative advantage that the policy has left behind: mean log(sampler/pi) > delta.

    DeepSeek-V3.2's mask (METHODS); TRL suggests 0.5.
    """
    left = batch.sequence_mean(batch.behaviour - batch.logprobs) > delta
    bad = batch.sequence_mean(advantage) < 0
    return 1 - batch.spread((left & bad).to(batch.logprobs.dtype))
