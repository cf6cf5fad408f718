"""Merging from a base on disk: what a damaged base says, and that nothing but the target changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iterpo.errors import CorruptModel
from iterpo.policies.adapter import Adapter
from iterpo.policies.merge import check_fits, merged_weights

NAME = "model.layer.weight"
ADAPTER = Adapter(2, 4.0, {"model.layer": (torch.ones(2, 3), torch.ones(4, 2))})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """One linear layer of zeros, 3 in, 4 out."""
    path = tmp_path / "base"
    path.mkdir()
    save_file({NAME: torch.zeros(4, 3)}, path / "model.safetensors")
    return path


def test_the_update_is_added_to_the_weight(base: Path) -> None:
    # alpha/r = 4/2, and B A of ones over rank 2 is 2 everywhere: 0 + 2 * 2.
    assert dict(merged_weights(base, ADAPTER))[NAME].tolist() == [[4.0] * 3] * 4


def test_a_thousand_merges_leave_the_base_as_it_is(base: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    for _ in range(1000):
        dict(merged_weights(base, ADAPTER))
    assert dict(merged_weights(base))[NAME].tolist() == [[0.0] * 3] * 4
    assert (base / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("read", [lambda base: list(merged_weights(base)), lambda base: check_fits(base, ADAPTER)])
def test_a_damaged_base_is_said_to_be_damaged(base: Path, read) -> None:
    (base / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match=r"model\.safetensors cannot be read"):
        read(base)
