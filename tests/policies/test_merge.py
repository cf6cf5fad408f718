"""Merging from a base on disk: what a damaged base says, and that nothing but the target changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iterpo.errors import CorruptModel
from iterpo.policies.adapter import Adapter
from iterpo.policies.merge import check_fits, merged_weights, rounded

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


COLUMNS = 1000


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("update", [0.03, 0.1, 0.4, 0.5, 0.7])
def test_a_rows_sum_has_an_update_that_is_smaller_than_a_step_of_bfloat16(update: float, sign: float) -> None:
    """Between 1 and 2 a step is 2^-7. To the nearest, less than half a step is nothing, and more is a whole one."""
    weight = sign * torch.full((3, COLUMNS), 1 + update * 2**-7)
    found = rounded(weight, torch.bfloat16)
    assert found.dtype is torch.bfloat16
    assert set(found.unique().tolist()) == {sign, sign * (1 + 2**-7)}
    steps = (found.double().mean(1) * sign - 1) / 2**-7
    assert steps.tolist() == pytest.approx([update] * 3, abs=0.005)
    nearest = (weight.bfloat16().double().mean(1) * sign - 1) / 2**-7
    assert (nearest - update).abs().max() >= 0.03


def test_an_updates_product_is_nearer_than_to_the_nearest() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(shape, generator=draw) for shape in ((64, 576), (576, 8)))
    weight = 0.1 * weight.bfloat16().float()
    update = 2e-4 * torch.randn(64, 1, generator=draw) @ torch.randn(1, 576, generator=draw).abs()
    base, wanted = rounded(weight, torch.bfloat16), (update @ x.abs()).double()

    def found(merged: torch.Tensor) -> torch.Tensor:
        return (merged.double() - base.double()) @ x.abs().double()

    ours, nearest = found(rounded(base.float() + update, torch.bfloat16)), found((base.float() + update).bfloat16())
    assert (ours - wanted).norm() < 0.5 * (nearest - wanted).norm()
    share = float((nearest * wanted).sum() / wanted.square().sum())
    assert share < 0.95
    assert float((ours * wanted).sum() / wanted.square().sum()) == pytest.approx(1, abs=0.03)


def test_numbers_of_bfloat16_stay_what_they_are() -> None:
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = every[every.isfinite()].view(1, -1)
    assert torch.equal(rounded(finite.float(), torch.bfloat16), finite)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_in_other_types_it_is_the_nearest(dtype: torch.dtype) -> None:
    weight = torch.linspace(-1, 1, 12).view(3, 4)
    assert torch.equal(rounded(weight, dtype), weight.to(dtype))


def test_what_the_adapter_leaves_alone_is_not_rounded(base: Path) -> None:
    assert dict(merged_weights(base, None, torch.bfloat16))[NAME].dtype is torch.float32
    assert dict(merged_weights(base, ADAPTER, torch.bfloat16))[NAME].dtype is torch.bfloat16
