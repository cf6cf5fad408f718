"""Published policies of a model with one linear layer, and the engines that answer for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from iterpo.policies import manifest

BASE_DIGEST = "b" * 64
SEQUENCES = ((1, 2, 3, 4), (5, 6, 7))
BASE = ((-1.0, -2.0, -3.0), (-1.5, -2.5))


def shifted(rows=BASE, by: float = 0.5):
    return tuple(tuple(x + by for x in row) for row in rows)


def probe(new=None) -> manifest.Probe:
    new = shifted() if new is None else new
    return manifest.Probe(SEQUENCES, BASE, new, new)


def write_adapter(path: Path, b: float = 1.0, rank: int = 2, **config) -> None:
    """A LoRA on `model.layer`, 3 in, 4 out: A all ones, B all `b`."""
    body = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["layer"], "bias": "none"} | config
    (path / "adapter_config.json").write_text(json.dumps(body))
    prefix = "base_model.model.model.layer"
    tensors = {f"{prefix}.lora_A.weight": torch.ones(rank, 3), f"{prefix}.lora_B.weight": torch.full((4, rank), b)}
    save_file(tensors, path / "adapter_model.safetensors")


def publish(root: Path, version: int = 1, made: manifest.Manifest | None = None, run_id: str = "r", **adapter) -> str:
    made = made or manifest.Manifest(version, BASE_DIGEST, probe(), run_id=run_id, method="grpo")
    return manifest.publish(root, replace(made, version=version), lambda path: write_adapter(path, **adapter))
