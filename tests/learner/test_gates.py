"""Gated layers that keep one tensor less: no number changes, and whoever computes something else is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from iterpo.learner import adapters
from iterpo.learner.gates import keep_less
from iterpo.learner.memory import kept_bytes
from tests.learner.test_policy_model import model

TOKENS, WIDTH, INNER = 5, 8, 12


def layer(kind: type[LlamaMLP] = LlamaMLP, activation: str = "silu") -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=1, hidden_act=activation)
    return nn.Sequential(kind(config))


class Multiplied(LlamaMLP):
    """The same projections, another product."""

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x) * 0.5) * self.up_proj(x))


def with_gradients(model: nn.Module) -> list[torch.Tensor]:
    x = torch.linspace(-3, 3, TOKENS * WIDTH).view(TOKENS, WIDTH).requires_grad_()
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters())]


def test_output_and_all_gradients_are_the_same_to_the_last_bit():
    usual, less = layer(), layer()
    keep_less(less)
    found = list(zip(with_gradients(usual), with_gradients(less), strict=True))
    assert len(found) == 5
    assert all(torch.equal(one, other) for one, other in found)
    assert found[1][0].abs().max() > 1e-3


def test_one_tensor_as_wide_as_the_layer_is_not_kept():
    x = torch.ones(TOKENS, WIDTH, requires_grad=True)
    usual, less = layer(), layer()
    keep_less(less)
    assert kept_bytes(lambda: usual(x)) - kept_bytes(lambda: less(x)) == 4 * TOKENS * INNER


@pytest.mark.parametrize("other", [layer(Multiplied), layer(activation="gelu"), nn.Sequential(nn.Linear(WIDTH, WIDTH))])
def test_layers_that_compute_something_else_are_left_alone(other):
    expected = with_gradients(other)
    other.zero_grad(set_to_none=True)
    keep_less(other)
    assert "forward" not in vars(other[0])
    assert all(torch.equal(*both) for both in zip(expected, with_gradients(other), strict=True))


@pytest.mark.parametrize(("in_one", "kept_less"), [(True, 2), (False, 1)])
def test_the_policys_own_layers_keep_less(tiny_model, in_one, kept_less):
    """Neither silu(gate), nor, with adapters in one function, its product with up."""
    made = model(tiny_model)
    if not in_one:
        for module in filter(adapters.is_in_one, made.peft.modules()):
            del module.forward
    gated = [module for module in made.decoder.modules() if isinstance(module, LlamaMLP)]
    less = made._bytes_a_token()
    for module in gated:
        del module.forward  # the instance's; the class's is back
    assert gated
    assert made._bytes_a_token() - less == kept_less * 8 * len(gated) * made.decoder.config.intermediate_size
