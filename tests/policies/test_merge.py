"""Merging into a base on disk: what a damaged base and a full disk say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from iterpo.errors import CorruptModel, ResourceExhausted
from iterpo.policies.adapter import Adapter
from iterpo.policies.merge import write_merged
from tests.policies.full_disk import full_disk

NAME = "model.layer.weight"
ADAPTER = Adapter(2, 4.0, {"model.layer": (torch.ones(2, 3), torch.ones(4, 2))})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """One linear layer of zeros, 3 in, 4 out."""
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file({NAME: torch.zeros(4, 3)}, path / "model.safetensors")
    return path


def test_the_update_is_added_to_the_weight(base: Path, tmp_path: Path) -> None:
    write_merged(base, ADAPTER, tmp_path / "merged")
    # alpha/r = 4/2, and B A of ones over rank 2 is 2 everywhere: 0 + 2 * 2.
    assert load_file(tmp_path / "merged" / "model.safetensors")[NAME].tolist() == [[4.0] * 3] * 4


@pytest.mark.parametrize("config", ["{}", '{"a": "' + "x" * 100 + '"}'])
def test_a_full_disk_is_said_and_leaves_nothing(base: Path, tmp_path: Path, config: str) -> None:
    (base / "config.json").write_text(config)
    with full_disk(), pytest.raises(ResourceExhausted, match="does not fit") as caught:
        write_merged(base, ADAPTER, tmp_path / "merged")
    assert caught.value.reason == "DISK_FULL"
    assert not (tmp_path / "merged").exists()


def test_a_damaged_base_is_said_to_be_damaged(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match=r"model\.safetensors cannot be read"):
        write_merged(base, ADAPTER, tmp_path / "merged")
