"""In which type a model computes: bfloat16 where the hardware multiplies it, float32 where it would be emulated.

A CPU without AVX-512 BF16 or AMX takes eight times as long for bfloat16 products as for float32 ones (measured on two
cores: 17 against 130 GFLOP/s; served, 32 against 170 tokens/s). The weights are the checkpoint's either way: a bfloat16
one has the same numbers in float32.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


def compute_dtype(name: str, device: str) -> torch.dtype:
    """Of a name of torch's, or of `auto`; `device` is `cpu` or `cuda`."""
    if name != "auto":
        return cast("torch.dtype", getattr(torch, name))
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def has_bfloat16(device: str) -> bool:
    """Whether there are instructions for it. torch has no public word for this on CPUs; its kernels ask so."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if "AVX" in torch.backends.cpu.get_cpu_capability():  # oneDNN calls AVX-512 without BF16 enough, and converts
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def wide(x: Tensor) -> Tensor:
    """x for sums and exponentials: not narrower than float32; x itself, where it is not."""
    return x if x.dtype == torch.float64 else x.float()
