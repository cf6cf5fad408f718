"""A checkpoint: adapter, optimiser, random state and perhaps a critic; written atomically, without pickle.

The directory is complete or absent (dot-name, fsync, rename). It becomes *the* checkpoint when the ledger's
transaction names it; the one before is removed only afterwards.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from iterpo.errors import CorruptModel, ResourceExhausted
from iterpo.policies.manifest import sync

Weights = dict[str, Tensor]


def save(directory: Path, adapter: Weights, optimizer: dict[str, Any], critic: Weights | None = None) -> None:
    """Raises ResourceExhausted (DISK_FULL); then nothing is left behind and the previous checkpoint stands."""
    staging = directory.parent / f".{directory.name}.writing"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        save_file({k: v.contiguous().cpu() for k, v in adapter.items()}, staging / "adapter.safetensors")
        if critic is not None:
            save_file({k: v.contiguous().cpu() for k, v in critic.items()}, staging / "critic.safetensors")
        flat = {f"{i}.{name}": value for i, state in optimizer["state"].items() for name, value in state.items()}
        save_file({k: v.contiguous().cpu() for k, v in flat.items()}, staging / "optimizer.safetensors")
        save_file({"torch": torch.get_rng_state()}, staging / "random.safetensors")
        (staging / "optimizer.json").write_text(json.dumps(optimizer["param_groups"]))
        for path in (*staging.iterdir(), staging):
            sync(path)
        staging.rename(directory)
        sync(directory.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ResourceExhausted(
            f"The checkpoint could not be written to {directory.parent}: {getattr(error, 'strerror', None) or error}.",
            "Free disk space there and resume the run: its previous checkpoint stands.",
            "DISK_FULL",
        ) from error


def load(directory: Path) -> tuple[Weights, dict[str, Any], Weights | None]:
    """The adapter, the optimiser's state dict, and the critic of methods that have one; restores torch's random state.
    Raises CorruptModel."""
    try:
        adapter = load_file(directory / "adapter.safetensors")
        critic = load_file(directory / "critic.safetensors") if (directory / "critic.safetensors").exists() else None
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(directory / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = json.loads((directory / "optimizer.json").read_text())
        torch.set_rng_state(load_file(directory / "random.safetensors")["torch"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptModel(
            f"Checkpoint {directory} cannot be read: {error}.", "Start a new run from a published policy version."
        ) from error
    return adapter, {"state": state, "param_groups": groups}, critic
