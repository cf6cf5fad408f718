"""Fold an adapter into its base: W' = W + alpha/r B A, computed in float32, stored in the base's type.

Always starts from the pristine base on disk, so that a thousand swaps leave no drift.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from iterpo.errors import CorruptModel, PolicyRejected, ResourceExhausted
from iterpo.policies.adapter import Adapter

if TYPE_CHECKING:
    from torch import Tensor


def write_merged(base: Path, adapter: Adapter, target: Path) -> None:
    """Write a whole checkpoint of the merged model into `target`, replacing what is there.

    Raises PolicyRejected (UNSERVABLE_ADAPTER) when a module of the adapter is not in the base or has another shape,
    ResourceExhausted (DISK_FULL) when it does not fit, CorruptModel when a file of the base cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    shutil.rmtree(target, ignore_errors=True)
    left = set(adapter.pairs)
    try:
        target.mkdir(parents=True)
        for file in base.glob("*.json"):
            shutil.copy(file, target)
        for shard in sorted(base.glob("*.safetensors")):
            weights = _weights(shard)
            for module in sorted(left):
                name = f"{module}.weight"
                if name in weights:
                    a, b = adapter.pairs[module]
                    if weights[name].shape != (b.shape[0], a.shape[1]):
                        raise _misfit(module, "has another shape there")
                    update = adapter.scaling * (b.float() @ a.float())
                    weights[name] = (weights[name].float() + update).to(weights[name].dtype)
                    left.discard(module)
            save_file(weights, target / shard.name, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ResourceExhausted(
            f"The merged model does not fit into {target.parent}: {getattr(error, 'strerror', None) or error}.",
            "Free memory or disk space there, or use inference.delivery = 'adapter'.",
            "DISK_FULL",
        ) from error
    if left:
        raise _misfit(min(left), "is not there")


def _weights(shard: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(shard)
    except (OSError, SafetensorError) as error:
        raise CorruptModel(f"{shard} cannot be read: {error}.", "Download or save the base model again.") from error


def _misfit(module: str, why: str) -> PolicyRejected:
    return PolicyRejected(
        f"The adapter targets {module}, which {why} in the base model.",
        "It was trained on another base: train on the one that is served.",
        "UNSERVABLE_ADAPTER",
    )
