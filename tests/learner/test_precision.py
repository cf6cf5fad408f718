"""Computed in what the hardware multiplies; the weights are the same numbers either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iterpo import precision
from iterpo.learner.policy_model import PolicyModel
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
    assert {made.served_dtype for made in models} == {torch.bfloat16}  # what a merge is rounded to


def test_a_float32_checkpoint_is_not_rounded_where_float32_computes(tiny_model):
    made = PolicyModel(tiny_model, LoraConfig(r=4, alpha=8), seed=0, dtype="float32")
    assert made.served_dtype is torch.float32
    assert not torch.equal(made.head.weight, made.head.weight.bfloat16().float())
