"""Gated layers, down(silu(gate(x)) * up(x)), that keep gate and up alone for the backward: silu(gate), and its product
with up, which the adapter of `down` looks at, are computed once more there.

They are as wide as a layer gets, and cheap: a pass over memory each. The same operations on the same numbers, so the
same gradient to the last bit. Not implemented: other activations, gate and up in one projection; their layers stay as
they are.
"""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from iterpo.learner import adapters


def keep_less(decoder: nn.Module) -> None:
    """From now on, in every gated layer of a transformers model. Layers are known by what they compute, since others
    have projections of the same names."""
    with torch.no_grad():
        layers = [module for module in decoder.modules() if _is_gated(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer)


def _is_gated(layer: Any) -> bool:
    projections = [getattr(layer, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(p, nn.Linear) for p in projections) or len(signature(layer.forward).parameters) != 1:
        return False
    weight = layer.gate_proj.weight
    probe = torch.linspace(-4, 4, weight.shape[1], device=weight.device, dtype=weight.dtype)[None]
    return torch.equal(layer(probe), _forward(layer, probe))


def _forward(layer: Any, x: Tensor) -> Tensor:
    gate, up = layer.gate_proj(x), layer.up_proj(x)
    product = adapters.product_of(layer.down_proj) if adapters.is_in_one(layer.down_proj) else None
    if product is None:
        plain: Tensor = layer.down_proj(_Gated.apply(gate, up))  # type: ignore[no-untyped-call]  # torch's apply
        return plain
    out: Tensor = _GatedDown.apply(gate, up, *product)  # type: ignore[no-untyped-call]
    return out


def _backward(grad: Tensor, gate: Tensor, up: Tensor, activated: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up; `activated`: silu(gate)."""
    of_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
    return of_gate, grad * activated


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return _backward(grad, gate, up, nn.functional.silu(gate))


class _GatedDown(torch.autograd.Function):
    """With an adapter's `down`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, *product: Any) -> Tensor:
        out, low = adapters.forward(nn.functional.silu(gate) * up, product)
        ctx.product = product
        ctx.save_for_backward(gate, up, low)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, low = ctx.saved_tensors
        activated = nn.functional.silu(gate)
        of_gated, of_a, of_b = adapters.backward(grad, activated * up, low, ctx.product)
        assert of_gated is not None
        return *_backward(of_gated, gate, up, activated), None, None, of_a, of_b, None
