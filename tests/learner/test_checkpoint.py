"""Checkpoints: whole or not there, and readable or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iterpo.errors import CorruptModel, ResourceExhausted
from iterpo.learner import checkpoint
from iterpo.learner.policy_model import PolicyModel
from iterpo.run_config import LoraConfig
from tests.policies.full_disk import full_disk

ADAPTER = {"a": torch.arange(4.0)}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    adapter, optimizer = checkpoint.load(tmp_path / "000001")
    assert adapter["a"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert (float(optimizer["state"][0]["step"]), optimizer["param_groups"]) == (3.0, [{"lr": 0.1}])


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(ResourceExhausted, match="Free disk space") as caught:
        checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    assert caught.value.reason == "DISK_FULL"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "random.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    (tmp_path / "000001" / name).write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match="cannot be read"):
        checkpoint.load(tmp_path / "000001")


def test_a_model_with_damaged_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match="not a loadable model"):
        PolicyModel(tmp_path, LoraConfig(), seed=0, budget=64)
