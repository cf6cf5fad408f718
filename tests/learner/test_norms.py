"""Norms that keep their input alone: the same numbers, autograd's gradient, and whoever computes something else is left
alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from iterpo.learner.memory import kept_bytes
from iterpo.learner.norms import keep_less
from tests.learner.test_policy_model import model

TOKENS, WIDTH = 5, 8


def norm(kind: type[nn.Module] = LlamaRMSNorm, dtype: torch.dtype = torch.float64) -> nn.Module:
    made = nn.Sequential(kind(WIDTH).to(dtype).requires_grad_(False))
    if made[0].weight is not None:
        made[0].weight.copy_(torch.linspace(-1, 2, WIDTH))
    return made


class WithOne(LlamaRMSNorm):
    """Gemma's: its weights are kept less one."""

    def forward(self, x):
        return super().forward(x) + super().forward(x) / self.weight


def with_gradient(model: nn.Module, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    x = torch.linspace(-3, 5, TOKENS * WIDTH, dtype=dtype).view(TOKENS, WIDTH).sin().requires_grad_()
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
    return [out.detach(), x.grad]


def test_the_output_is_the_same_to_the_last_bit_and_the_gradient_is_autograds():
    usual, less = norm(), norm()
    keep_less(less)
    assert "forward" in vars(less[0])
    (out, gradient), (other, others) = with_gradient(usual), with_gradient(less)
    assert torch.equal(out, other)
    assert torch.allclose(gradient, others, rtol=1e-12, atol=1e-14)
    assert gradient.abs().max() > 0.1


def test_in_bfloat16_the_gradient_is_as_near_to_the_true_one_as_autograds():
    usual, less = norm(dtype=torch.bfloat16), norm(dtype=torch.bfloat16)
    keep_less(less)
    true = with_gradient(norm())[1]
    of_autograd, of_ours = (with_gradient(made, torch.bfloat16)[1].double() for made in (usual, less))
    assert (of_ours - true).norm() < 1.1 * (of_autograd - true).norm() < 0.02 * true.norm()


def test_the_input_is_kept_in_its_own_type():
    """Two bytes a number, and four a token for its root; autograd keeps four a number."""
    x = torch.ones(TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    usual, less = norm(dtype=torch.bfloat16), norm(dtype=torch.bfloat16)
    keep_less(less)
    assert kept_bytes(lambda: usual(x)) - kept_bytes(lambda: less(x)) >= (4 - 2) * TOKENS * WIDTH


@pytest.mark.parametrize("other", [norm(WithOne), norm(nn.LayerNorm), norm(nn.RMSNorm), nn.Sequential(nn.Linear(8, 8))])
def test_norms_that_compute_something_else_are_left_alone(other):
    keep_less(other)
    assert "forward" not in vars(other[0])


@pytest.mark.parametrize(("dtype", "less"), [("bfloat16", True), ("float32", False)])
def test_the_policys_norms_keep_less_where_a_norm_is_wider_than_its_input(tiny_model, dtype, less):
    norms = [m for m in model(tiny_model, dtype=dtype).decoder.modules() if isinstance(m, LlamaRMSNorm)]
    assert len(norms) >= 3
    assert {"forward" in vars(m) for m in norms} == {less}
