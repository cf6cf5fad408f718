"""Gated layers, down(silu(gate(x)) * up(x)), that keep less for the backward: silu(gate) is computed once more there.

It is as wide as a layer gets, and cheap: one pass over memory. The same operations on the same numbers, so the same
gradient to the last bit. Not implemented: other activations, gate and up in one projection; their layers stay as they
are.
"""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn


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
    out: Tensor = layer.down_proj(_Gated.apply(layer.gate_proj(x), layer.up_proj(x)))  # type: ignore[no-untyped-call]
    return out


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return of_gate, grad * nn.functional.silu(gate)
