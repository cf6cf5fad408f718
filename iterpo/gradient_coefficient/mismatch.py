"""Correction of the trainer/sampler mismatch: the sampler's numerics are not the trainer's (invariant 7).

w = pi_old(trainer) / pi(sampler), a token at a time, multiplies the coefficient. Sequence-level masks are not
implemented yet.
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


def ratio(batch: TokenBatch) -> Tensor:
    """[B] w, unbounded: what is measured and logged."""
    return (batch.old - batch.behaviour).exp()


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


MISMATCH: dict[str, Callable[[TokenBatch], Tensor]] = {"none": none, "tis": tis, "mis": mis}
