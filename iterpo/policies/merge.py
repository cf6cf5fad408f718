"""Fold an adapter into its base: W' = W + alpha/r B A, in float32, rounded once, to the type of the engine's weights.

Rounded to a bfloat16 checkpoint's type, small updates would be lost in an engine that computes in float32, too. In an
engine that computes in bfloat16 they are rounded so that they are not (`rounded`).

Always starts from the pristine base on disk, so that a thousand swaps leave no drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iterpo.errors import CorruptModel, PolicyRejected
from iterpo.policies.adapter import Adapter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STEP = 40503
"""65,536 over the golden ratio, and odd: its multiples, modulo 65,536, lie evenly, however many they are."""


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A merged weight [out, in] of float32 in `dtype`; in bfloat16 with its update, however small.

    The step from one number of bfloat16 to the next is some 2^-8 of it, an update some 2^-10 of a weight: to the
    nearest, what is less than half a step is lost, of a first update 20 % of its effect (docs/serving.md). Here every
    column has a threshold of its own, and a weight goes up where what it has beyond the lower number is above: over a
    row, which is what an output sums, it comes to the update. Numbers of bfloat16, a base's for one, stay what they
    are. Thresholds are always the same, so the learner knows what the engine will hold.
    """
    import torch

    if dtype is not torch.bfloat16 or weight.dtype is not torch.float32:
        return weight.to(dtype)
    thresholds = (torch.arange(weight.shape[-1], device=weight.device) * STEP + (1 << 15)) % (1 << 16)
    bits = weight.contiguous().view(torch.int32) + thresholds.to(torch.int32)
    return bits.bitwise_and_(-1 << 16).view(torch.float32).to(dtype)  # bfloat16 is float32's upper half


def merged_weights(
    base: Path, adapter: Adapter | None = None, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of every tensor of the base's files as it is; those that the adapter targets with its update, in
    `dtype`, or else in float32.

    One at a time, so that a merge needs the memory of one matrix. Raises CorruptModel when a file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    pairs = adapter.pairs if adapter else {}
    for shard in shards(base):
        try:
            with safe_open(shard, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118  (not a dict)
                    weight = weights.get_tensor(name)
                    if adapter and (pair := pairs.get(name.removesuffix(".weight"))):
                        a, b = pair
                        weight = (b.float() @ a.float()).mul_(adapter.scaling).add_(weight)
                        weight = rounded(weight, dtype or weight.dtype)
                    yield name, weight
        except (OSError, SafetensorError) as error:
            raise CorruptModel(f"{shard} cannot be read: {error}.", "Download or save the base model again.") from error


def check_fits(base: Path, adapter: Adapter) -> None:
    """Raises PolicyRejected (UNSERVABLE_ADAPTER) when a module of the adapter is not in the base or has another shape,
    CorruptModel when a file of the base cannot be read. Reads the files' headers alone."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for shard in shards(base):
        try:
            with safe_open(shard, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118  (not a dict)
                    shapes[name] = tuple(weights.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise CorruptModel(f"{shard} cannot be read: {error}.", "Download or save the base model again.") from error
    for module, (a, b) in adapter.pairs.items():
        shape = shapes.get(f"{module}.weight")
        if shape != (b.shape[0], a.shape[1]):
            raise PolicyRejected(
                f"The adapter targets {module}, which {'has another shape' if shape else 'is not'} in the base model.",
                "It was trained on another base: train on the one that is served.",
                "UNSERVABLE_ADAPTER",
            )


def shards(base: Path) -> list[Path]:
    return sorted(base.glob("*.safetensors"))
