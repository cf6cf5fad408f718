"""Attention over a packed row (packing.Layout): prompts among themselves, answers to their prompt and to themselves.

A prompt's keys and values are computed once for all its answers, forward and backward; the same numbers as with every
sequence on its own, in another order of additions. Only here are prompts and answers padded to equal lengths, since
batched products want rectangles; all other layers see real tokens alone. Products are plain ones: on CPUs they beat the
fused kernels backwards (DECISIONS.md); on GPUs they have not been compared.

Registered with transformers under NAME. Not implemented: fused kernels; sliding windows, soft caps, sinks (`is_plain`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from iterpo.learner.packing import Layout
from iterpo.precision import wide

NAME = "iterpo_shared_prompt"
KEPT_BYTES = 512 * 1024**2
"""Of all layers' scores: above it they are computed once more in the backward instead of kept, which takes a fifth
longer (docs/performance.md)."""


def shared_prompt_attention(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float,
    layout: Layout,
    kept_layers: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """In transformers' form, whose fifth argument is not needed: query [1, heads, N, d], key and value
    [1, kv heads, N, d] -> [1, N, heads, d]. `kept_layers`: how many layers' scores would be in memory at a time."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if torch.is_grad_enabled() and kept_layers * scores_bytes(layout, q) > KEPT_BYTES:
        # Nothing in it is random; to keep the generator's state would disturb another run's in this process.
        out = checkpoint(attend, q, k, v, layout, scaling, use_reentrant=False, preserve_rng_state=False)
    else:
        out = attend(q, k, v, layout, scaling)
    return out[None], None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float) -> Tensor:
    """[N, heads, d] of q [N, heads, d] and k, v [N, kv heads, d]."""
    heads, kv, width = q.shape[1], k.shape[1], q.shape[2]
    groups, prompt_length = layout.prompts.shape
    count, length = layout.answers.shape[1:]
    spread = [_Spread.apply(x, layout) for x in (q, k, v)]  # type: ignore[no-untyped-call]  # torch's apply
    q_prompt, k_prompt, v_prompt = (_prompts(x, kv) for x, _ in spread)  # [G, kv, r, P, d]
    scores = (q_prompt.flatten(2, 3) @ k_prompt[:, :, 0].mT).view(*q_prompt.shape[:-1], prompt_length)
    [weights] = _weights(scaling, (scores, _later(prompt_length, q.device)))
    seen = weights.flatten(2, 3) @ v_prompt[:, :, 0]
    of_prompts = seen.view(groups, kv, -1, prompt_length, width).permute(0, 3, 1, 2, 4).reshape(-1, heads, width)
    of_answers = of_prompts[:0]
    if length:
        q_own, k_own, v_own = (_answers(x, kv) for _, x in spread)  # [G, kv, n, r, C, d]
        q_own = q_own.contiguous()  # two products read it: laid out once, it is kept once
        to_prompt = (q_own.flatten(2, 4) @ k_prompt[:, :, 0].mT).view(*q_own.shape[:-1], prompt_length)
        to_own = (q_own.flatten(3, 4) @ k_own[:, :, :, 0].mT).view(*q_own.shape[:-1], length)
        unknown = ~layout.known[:, None, None, None, None]
        on_prompt, on_own = _weights(scaling, (to_prompt, unknown), (to_own, _later(length, q.device)))
        seen = (on_prompt.view(groups, kv, -1, prompt_length) @ v_prompt[:, :, 0]).view(q_own.shape)
        seen = seen + (on_own.flatten(3, 4) @ v_own[:, :, :, 0]).view(q_own.shape)
        of_answers = seen.permute(0, 2, 4, 1, 3, 5).reshape(groups * count * length, heads, width)
    found: Tensor = _Collect.apply(of_prompts, of_answers, layout)  # type: ignore[no-untyped-call]  # torch's apply
    return found


class _Spread(torch.autograd.Function):
    """A row's tokens into the rectangles of prompts and answers, zeros where there is none. Each token has one place,
    so the backward is `_Collect`: a lookup, where autograd's own would add up token by token."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        ctx.layout = layout
        padded = _padded(row)
        return padded[layout.prompts], padded[layout.answers]

    @staticmethod
    def backward(ctx: Any, of_prompts: Tensor, of_answers: Tensor) -> tuple[Tensor, None]:
        layout = ctx.layout
        return torch.cat([of_prompts.flatten(0, 1), of_answers.flatten(0, 2)])[layout.places], None


class _Collect(torch.autograd.Function):
    """The rectangles, flat, back into a row; what stands where no token is gets lost. The backward is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, of_prompts: Tensor, of_answers: Tensor, layout: Layout) -> Tensor:
        ctx.layout, ctx.shapes = layout, (of_prompts.shape, of_answers.shape)
        return torch.cat([of_prompts, of_answers])[layout.places]

    @staticmethod
    def backward(ctx: Any, row: Tensor) -> tuple[Tensor, Tensor, None]:
        padded = _padded(row)
        one, other = (
            padded[places].view(shape)
            for places, shape in zip((ctx.layout.prompts, ctx.layout.answers), ctx.shapes, strict=True)
        )
        return one, other, None


@contextmanager
def shared_prompts(config: Any) -> Iterator[None]:
    """Within: a model of this configuration attends as this file says."""
    usual = config._attn_implementation  # noqa: SLF001  (the name that transformers' own set_attn_implementation sets)
    config._attn_implementation = NAME  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = usual  # noqa: SLF001


def is_plain(config: Any) -> bool:
    """Whether a model's layers are what this file computes, by its configuration: causal, over everything before."""
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    return not (windowed or others or getattr(config, "attn_logit_softcapping", None))


def scores_bytes(layout: Layout, q: Tensor) -> int:
    """What `attend` keeps of one layer's weights for the backward."""
    groups, prompt = layout.prompts.shape
    count, length = layout.answers.shape[1:]
    return groups * q.shape[1] * (prompt * prompt + count * length * (prompt + length)) * q.element_size()


def _prompts(x: Tensor, kv: int) -> Tensor:
    """[G, kv, heads / kv, P, d] of [G, P, heads, d]."""
    return torch.unflatten(x, 2, (kv, -1)).permute(0, 2, 3, 1, 4)


def _answers(x: Tensor, kv: int) -> Tensor:
    """[G, kv, n, heads / kv, C, d] of [G, n, C, heads, d]."""
    return torch.unflatten(x, 3, (kv, -1)).permute(0, 3, 1, 4, 2, 5)


def _padded(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros(1, *x.shape[1:])])


def _later(length: int, device: torch.device) -> Tensor:
    """[length, length] what a token does not see: those after it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _weights(scaling: float, *blocks: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Of blocks of scores [..., M_i], which lie side by side, and of what they hide: the softmax over all of them, in
    blocks of their own."""
    scores, hidden = zip(*blocks, strict=True)
    weights: tuple[Tensor, ...] = _Weights.apply(scaling, hidden, *scores)  # type: ignore[no-untyped-call]
    return weights


class _Weights(torch.autograd.Function):
    """In the scores' type, computed in float32 at least. Each block is kept once, as the product with the values keeps
    it; autograd would keep it in float32 too. What is hidden has no weight, and so no gradient."""

    @staticmethod
    def forward(ctx: Any, scaling: float, hidden: tuple[Tensor, ...], *scores: Tensor) -> tuple[Tensor, ...]:
        ctx.scaling = scaling
        full, blocks = _side_by_side(scores)
        full.mul_(scaling)
        for block, unseen in zip(blocks, hidden, strict=True):
            block.masked_fill_(unseen, -torch.inf)
        weights = _apart(full.softmax(-1), scores)
        ctx.save_for_backward(*weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, _ = _side_by_side(ctx.saved_tensors)
        of_weights, _ = _side_by_side(gradients)
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)  # noqa: SLF001
        return None, None, *_apart(of_scores.mul_(ctx.scaling), gradients)


def _side_by_side(blocks: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """A copy in float32 at least, and the blocks in it."""
    widths = [block.shape[-1] for block in blocks]
    full = blocks[0].new_empty(*blocks[0].shape[:-1], sum(widths), dtype=wide(blocks[0][:0]).dtype)
    parts = full.split(widths, -1)
    for part, block in zip(parts, blocks, strict=True):
        part.copy_(block)
    return full, parts


def _apart(full: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    parts = full.split([block.shape[-1] for block in like], -1)
    return tuple(part.to(block.dtype).contiguous() for part, block in zip(parts, like, strict=True))


AttentionInterface.register(NAME, shared_prompt_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)
