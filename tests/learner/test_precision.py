"""Computed in what the hardware multiplies; the weights are the same numbers either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iterpo import precision
from iterpo.learner.policy_model import POLICY, PolicyModel
from iterpo.precision import compute_dtype
from iterpo.run_config import LoraConfig


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch):
    for has, expected in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, has=has: has)
        assert compute_dtype("auto", "cpu") is expected
        assert compute_dtype("bfloat16", "cpu") is torch.bfloat16


def test_what_torch_says_of_this_processor_is_what_its_flags_say():
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    if not flags:
        pytest.skip("no x86 processor")
    assert precision.has_bfloat16("cpu") == ("avx512_bf16" in flags or "amx_tile" in flags)


def test_adapters_are_float32_and_a_bfloat16_checkpoint_has_the_same_numbers_in_either(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(tmp_path)
    models = [PolicyModel(tmp_path, LoraConfig(r=4, alpha=8), seed=0, dtype=d) for d in ("bfloat16", "float32")]
    for made, dtype in zip(models, (torch.bfloat16, torch.float32), strict=True):
        assert {p.dtype for p in made.parameters} == {torch.float32}
        assert made.head.weight.dtype is dtype
    assert torch.equal(models[0].head.weight.float(), models[1].head.weight)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_merges_are_rounded_to_what_an_engine_on_such_hardware_computes_in(tiny_model, monkeypatch, bfloat16):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _device: bfloat16)
    made = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, dtype="float32")
    assert made.served_dtype is (torch.bfloat16 if bfloat16 else torch.float32)


def test_an_update_too_small_for_bfloat16_is_served_where_float32_computes(tiny_model):
    """Half of bfloat16's spacing is 2^-9 of a weight; the update is 2^-12 of it."""
    made = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, dtype="float32")
    layer = next(m for m in made.peft.modules() if hasattr(m, "lora_B"))
    weight = layer.base_layer.weight.data.copy_(layer.base_layer.weight.bfloat16())
    a, b = layer.lora_A[POLICY].weight.data, layer.lora_B[POLICY].weight.data
    a.zero_(), b.zero_()
    a[0, 0], b[0, 0] = 1.0, weight[0, 0] * 2**-12 / layer.scaling[POLICY]
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        made.served_dtype = dtype
        with made.merged():
            moved[dtype] = float(layer.base_layer.weight[0, 0] / weight[0, 0])
    assert moved == {torch.float32: pytest.approx(1 + 2**-12, abs=1e-7), torch.bfloat16: 1.0}
