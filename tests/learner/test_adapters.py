"""LoRA layers as one function: PEFT's output, autograd's gradients, less memory; whatever is not plain is PEFT's."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from iterpo.learner import adapters
from iterpo.learner.memory import kept_bytes

TOKENS, IN, OUT, RANK = 64, 8, 12, 2


def layer(dtype: torch.dtype = torch.float64, bias: bool = True, **config) -> nn.Module:
    """Of a rank and a scaling of 2 and 1.5, with the same weights in every type, B not zero; the base's are frozen."""
    base = nn.Sequential(nn.Linear(IN, OUT, bias=bias).to(dtype))
    made = get_peft_model(base, LoraConfig(**{"r": RANK, "lora_alpha": 3, "target_modules": ["0"]} | config))
    with torch.no_grad():
        for number, weights in enumerate(made.parameters()):
            fixed = torch.linspace(1 + number, 30, weights.numel()).sin().bfloat16()
            weights.copy_(fixed.view(weights.shape))
    return made


def with_gradients(model: nn.Module, wanted: bool = True) -> dict[str, torch.Tensor]:
    dtype = model.base_model.model[0].get_base_layer().weight.dtype
    x = torch.linspace(-3, 5, TOKENS * IN).sin().bfloat16().to(dtype).view(1, TOKENS, IN).requires_grad_(wanted)
    mixed = dtype is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"out": out.detach(), "x": x.grad} | gradients


def of_both(dtype: torch.dtype = torch.float64, **config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    usual, ours = layer(dtype, **config), layer(dtype, **config)
    adapters.in_one(ours)
    assert adapters.is_in_one(ours.base_model.model[0])
    return with_gradients(usual), with_gradients(ours)


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_pefts(bias):
    usual, ours = of_both(bias=bias)
    assert len(usual) == 4
    for name, expected in usual.items():
        assert torch.allclose(ours[name], expected, rtol=1e-12, atol=1e-13), name
        assert expected.abs().max() > 0.1


def test_in_bfloat16_they_are_as_near_to_the_true_ones_as_pefts():
    """Which rounds the adapter's product, its multiple, and the sum."""
    true = of_both()[0]
    for name, of_peft in (both := of_both(torch.bfloat16))[0].items():
        theirs, ours = ((each.double() - true[name]).norm() for each in (of_peft, both[1][name]))
        assert ours < 1.3 * theirs < 0.05 * true[name].norm(), name


def test_adapters_gradients_are_in_the_adapters_own_type():
    ours = of_both(torch.bfloat16)[1]
    assert {each.dtype for name, each in ours.items() if "lora" in name} == {torch.float32}
    assert ours["out"].dtype == ours["x"].dtype == torch.bfloat16


def test_an_input_that_nobody_differentiates_gets_no_gradient():
    """The first layer's: tokens have none."""
    ours = layer()
    adapters.in_one(ours)
    found = with_gradients(ours, wanted=False)
    assert found["x"] is None
    assert all(torch.equal(found[name], expected) for name, expected in of_both()[1].items() if "lora" in name)


def test_the_input_and_the_rank_are_all_that_is_kept():
    ours, x = layer(), 2 * torch.ones(TOKENS, IN, dtype=torch.float64, requires_grad=True)
    adapters.in_one(ours)
    assert kept_bytes(lambda: ours(x)) == 8 * TOKENS * (IN + RANK)


@pytest.mark.parametrize("config", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_is_pefts(config):
    made = layer(torch.float32, **config)
    adapters.in_one(made)
    assert adapters.product_of(made.base_model.model[0]) is None
    found = []
    for each in (layer(torch.float32, **config), made):
        torch.manual_seed(1)
        found.append(with_gradients(each))
    assert all(torch.equal(found[1][name], expected) for name, expected in found[0].items())


def test_switched_off_or_with_two_at_a_time_it_is_pefts_too():
    usual, ours = layer(), layer()
    for made in (usual, ours):
        made.add_adapter("other", LoraConfig(r=RANK, lora_alpha=5, target_modules=["0"]))
        nn.init.ones_(made.base_model.model[0].lora_B["other"].weight)
        nn.init.ones_(made.base_model.model[0].lora_A["other"].weight)
    adapters.in_one(ours)
    x = torch.ones(TOKENS, IN, dtype=torch.float64)
    with usual.disable_adapter(), ours.disable_adapter():
        base = usual(x)
        assert torch.equal(ours(x), base)
    told = {}
    for names in (["default"], ["other"], ["default", "other"]):
        for made in (usual, ours):
            made.base_model.set_adapter(names)
        told["+".join(names)] = (ours(x) - base).detach()
        assert torch.allclose(ours(x), usual(x), rtol=1e-12)
    assert torch.allclose(told["default"] + told["other"], told["default+other"], rtol=1e-12)
    assert all(difference.abs().max() > 0.1 for difference in told.values())
