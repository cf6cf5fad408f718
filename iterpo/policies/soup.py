"""Several values at once (VC-Soup, arXiv:2603.18113): one adapter a value, merged with weights, the good merges kept.

A merge of LoRA adapters is the weighted sum of their updates, and that sum is an adapter again: stack the A matrices,
put the scaled B matrices side by side, and the ranks add up. Where they add up to more than may be served, the sum is
cut to its largest singular directions, module by module (Eckart-Young: the best approximation of that rank).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iterpo.errors import InvalidInput
from iterpo.policies.adapter import PREFIX, Adapter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Merge:
    rank: int
    tensors: Mapping[str, Tensor]
    """PEFT's names -> A [rank, in] and B [out, rank]; alpha equals the rank, so nothing is scaled when applied."""
    error: float
    """Of the cut: Frobenius norm of what was left out over that of the whole; 0 for an exact sum."""


def merge(adapters: Sequence[tuple[Adapter, float]], max_rank: int) -> Merge:
    """The sum of weight times update over all adapters. Raises InvalidInput for none, or for different modules."""
    if not adapters or any(not math.isfinite(weight) for _, weight in adapters):
        raise InvalidInput("There is nothing to merge.", "Name policy versions with finite weights.")
    modules = list(adapters[0][0].pairs)
    if any(set(adapter.pairs) != set(modules) for adapter, _ in adapters):
        raise InvalidInput("The adapters have different modules.", "Merge adapters of the same kind of run.")
    rank = min(max_rank, sum(adapter.rank for adapter, _ in adapters))
    tensors, lost, whole = {}, 0.0, 0.0
    for module in modules:
        a, b = _sum(adapters, module)
        a, b, squares, left = _cut(a, b, rank)
        whole, lost = whole + squares, lost + left
        tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"] = a, b
    return Merge(rank, tensors, math.sqrt(lost / whole) if whole else 0.0)


def _sum(adapters: Sequence[tuple[Adapter, float]], module: str) -> tuple[Tensor, Tensor]:
    """A [sum of ranks, in] and B [out, sum of ranks] whose product is the weighted sum, in float32."""
    import torch

    parts = [(*adapter.pairs[module], weight * adapter.scaling) for adapter, weight in adapters]
    return torch.cat([a.float() for a, _, _ in parts]), torch.cat([s * b.float() for _, b, s in parts], dim=1)


def _cut(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """The best factors of that rank, the update's squared norm, and the squared norm of what is left out. Works on the
    small matrix between two orthonormal bases: no [out, in] matrix is made."""
    import torch

    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T)
    squares, left = float(s.square().sum()), float(s[rank:].square().sum())
    if len(a) <= rank:
        return a.contiguous(), b.contiguous(), squares, 0.0
    root = s[:rank].sqrt()
    up, down = q_b @ (u[:, :rank] * root), (root[:, None] * v[:rank]) @ q_a.T
    return down.float().contiguous(), up.float().contiguous(), squares, left


def pareto(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the points that no other point beats: none is at least as good in every value and better in one. Larger
    is better; raises InvalidInput when the points have different numbers of values."""
    if len({len(values) for values in points.values()}) > 1:
        raise InvalidInput("The points have different numbers of values.", "Measure every value for every point.")
    return [name for name, values in points.items() if not any(_beats(other, values) for other in points.values())]


def _beats(other: Sequence[float], values: Sequence[float]) -> bool:
    pairs = list(zip(other, values, strict=True))
    return all(o >= v for o, v in pairs) and any(o > v for o, v in pairs)
