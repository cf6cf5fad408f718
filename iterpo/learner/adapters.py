"""LoRA layers, W x + s B A x, as one function: what the adapter adds is added where the base's product lies, forwards
and to the gradient of x backwards, where PEFT makes, scales and adds a tensor of a layer's width for each.

With g the gradient of the output and h = s B' g, in the width of the rank, the gradients are

    of x: W' g + A' h        of A: h x'        of B: s g (A x)'

Products are in x's type; A and B stay in theirs. Not implemented: dropout, biases of adapters, several adapters at a
time, PEFT's variants (DoRA, ...): such layers are computed as PEFT does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

Product = tuple[Tensor, Tensor | None, Tensor, Tensor, float]
"""W [out, in], its bias [out], A [r, in], B [out, r], s."""


def in_one(model: nn.Module) -> None:
    """From now on, in every LoRA layer of a PEFT model."""
    for layer in model.modules():
        if isinstance(layer, Linear) and isinstance(layer.get_base_layer(), nn.Linear):
            layer.forward = partial(_forward, layer)


def is_in_one(layer: Any) -> bool:
    return getattr(vars(layer).get("forward"), "func", None) is _forward


def product_of(layer: Any) -> Product | None:
    """What a layer computes at present, if it is one product with one plain adapter."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    [name] = layer.active_adapters
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return None
    if layer.training and getattr(layer.lora_dropout[name], "p", 0.0) > 0:
        return None
    base = layer.get_base_layer()
    return base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]


def _forward(layer: Any, x: Tensor, **more: Any) -> Tensor:
    product = None if more else product_of(layer)
    if product is None:
        usual: Tensor = type(layer).forward(layer, x, **more)
        return usual
    out: Tensor = _Adapted.apply(x, *product)  # type: ignore[no-untyped-call]  # torch's apply
    return out


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *product: Any) -> Tensor:
        out, low = forward(x, product)
        ctx.product = product
        ctx.save_for_backward(x, low)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, low = ctx.saved_tensors
        of_x, of_a, of_b = backward(gradient, x, low, ctx.product, ctx.needs_input_grad[0])
        return of_x, None, None, of_a, of_b, None


def forward(x: Tensor, product: Product) -> tuple[Tensor, Tensor]:
    """[..., out] of x [..., in], and A x, [N, r], for the backward."""
    weight, bias, a, b, scaling = product
    flat = x.flatten(0, -2)
    low = flat @ a.to(x.dtype).T
    out = nn.functional.linear(flat, weight, bias).addmm_(low, (scaling * b).to(x.dtype).T)
    return out.view(*x.shape[:-1], -1), low


def backward(
    gradient: Tensor, x: Tensor, low: Tensor, product: Product, wanted: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of x, if it is wanted, of A, and of B."""
    weight, _, a, b, scaling = product
    g, flat = gradient.flatten(0, -2), x.flatten(0, -2)
    h = g @ (scaling * b).to(g.dtype)
    of_x = (g @ weight).addmm_(h, a.to(g.dtype)).view(x.shape) if wanted else None
    return of_x, (h.T @ flat).to(a.dtype), (g.T @ low).to(b.dtype).mul_(scaling)
