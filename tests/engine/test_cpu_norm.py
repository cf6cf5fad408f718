"""RMSNorm by vLLM's compiled kernel: x / sqrt(mean(x^2) + eps) * weight, of x or of its sum with a residual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.engine

WIDTH, EPSILON = 16, 1e-5


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def norm(width: int = WIDTH) -> Any:
    """As an engine that compiles nothing has it; every other weight is -2."""
    import torch
    from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.layernorm import RMSNorm

    import services.inference.cpu_norm

    with set_current_vllm_config(VllmConfig(compilation_config=CompilationConfig(custom_ops=["all"]))):
        made = RMSNorm(width, EPSILON)
    assert isinstance(made, services.inference.cpu_norm.CompiledNorm)
    made.weight.data = torch.tensor([1.0, -2.0] * (width // 2))
    return made


def row(*first: float, width: int = WIDTH) -> Tensor:
    """[1, width], filled up with zeros."""
    import torch

    return torch.tensor([[*first, *[0.0] * (width - len(first))]])


@pytest.fixture
def kernels(torch, monkeypatch) -> list[str]:
    """The names of the kernels that were called."""
    from services.inference import cpu_norm

    called: list[str] = []
    for name in ("rms_norm", "fused_add_rms_norm"):
        kernel = getattr(cpu_norm.kernels, name)
        monkeypatch.setattr(cpu_norm.kernels, name, lambda *a, n=name, k=kernel: (called.append(n), k(*a))[1])
    return called


def test_of_three_and_four_among_sixteen_the_root_mean_square_is_five_quarters(torch, kernels) -> None:
    assert torch.allclose(norm()(row(3.0, 4.0)), row(2.4, -6.4), atol=1e-4)
    assert kernels == ["rms_norm"]


def test_with_a_residual_the_sum_is_normed_and_handed_on(torch, kernels) -> None:
    out, total = norm()(row(1.0, 5.0, -2.0), row(2.0, -1.0, 2.0))
    assert torch.equal(total, row(3.0, 4.0))
    assert torch.allclose(out, row(2.4, -6.4), atol=1e-4)
    assert kernels == ["fused_add_rms_norm"]


def test_memory_with_gaps_is_normed_by_vllm(torch, kernels) -> None:
    gaps = torch.stack([row(3.0, 4.0), row(9.0, 9.0)], -1)[..., 0]
    assert torch.allclose(norm()(gaps), row(2.4, -6.4), atol=1e-4)
    assert kernels == []


def test_numbers_of_another_type_than_the_weights_are_normed_by_vllm(torch, kernels) -> None:
    assert torch.allclose(norm()(row(3.0, 4.0).bfloat16()).float(), row(2.4, -6.4), atol=0.03)
    assert kernels == []


def test_a_width_that_the_kernel_does_not_take_is_normed_by_vllm(torch, kernels) -> None:
    """Root mean square 2.5 among four."""
    assert torch.allclose(norm(4)(row(3.0, 4.0, width=4)), row(1.2, -3.2, width=4), atol=1e-4)
    assert kernels == []
