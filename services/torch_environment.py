"""What torch needs of a process that computes: its environment before it is imported, and its memory back afterwards.

oneDNN and torch's wrapper of it keep a compiled product for each shape that they have met, 1,024 each. Batches and
texts have ever new lengths, so both caches fill up: bfloat16 products of 600 lengths with three matrices took a
gibibyte. With 64 each they took 70 MiB, and no longer (a step has some ten shapes).

An update or a step of the engine is hundreds of small products, between which OpenMP's threads wait. To wake one that
sleeps takes longer than many a product: they spin for a moment. GNU's that spin longer steal the cores of whoever else
computes; Intel's (iterpo.preload) let go of them (DECISIONS.md).
"""

from __future__ import annotations

import gc
import os

from iterpo import preload

SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
SPIN_A_LITTLE = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""GNU's rounds, and Intel's milliseconds. (vLLM gives the workers of its engines 5 of them, whatever was set.)"""


def set_defaults(**more: str) -> None:
    """Before torch is imported; only a composition root may. Values of the user's stay. Where OMP_WAIT_POLICY says how
    threads wait nothing else does: it would be overruled."""
    waiting = {} if "OMP_WAIT_POLICY" in os.environ else SPIN_A_LITTLE
    for name, value in (SMALL_CACHES | waiting | more).items():
        os.environ.setdefault(name, value)


def give_back_memory() -> None:
    """After a model: it holds cycles of references, which are collected some time or never, and what is freed stays
    with the allocator until it is asked."""
    gc.collect()
    preload.give_back()
