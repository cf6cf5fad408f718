"""Fold an adapter into its base: W' = W + alpha/r B A, in float32.

Whoever loads it rounds it once, to the type in which it holds its weights. Rounded to a bfloat16 checkpoint's type,
small updates would be lost in an engine that computes in float32, too.

Always starts from the pristine base on disk, so that a thousand swaps leave no drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iterpo.errors import CorruptModel, PolicyRejected
from iterpo.policies.adapter import Adapter

if TYPE_CHECKING:
    from torch import Tensor


def merged_weights(base: Path, adapter: Adapter | None = None) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of every tensor of the base's files as it is; those that the adapter targets with its update, in
    float32.

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
