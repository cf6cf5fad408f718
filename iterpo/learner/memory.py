"""How many tokens one forward and backward may take: found from what a token keeps and what memory is free.

A row's activations grow with its tokens, so "out of memory" is a matter of cutting rows; what cannot be cut, a long
sequence, has its layers recomputed (`recompute`). The numbers are guesses all the same (others use the machine too);
`within_memory` halves them when an allocation fails, the longest rows' first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from iterpo.errors import ResourceExhausted
from iterpo.learner.team import Team

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

MOST_TOKENS = {"cpu": 768, "cuda": 16384}
"""Longer rows are not faster, or not for the memory that they take (docs/performance.md; not measured on a GPU)."""
MOST_NARROW = 1280
"""On CPUs in a type of two bytes, which takes half the memory a token. Rows of 1,536 would take up to a sixth less
time and 150 to 600 MiB more (DECISIONS.md): a quarter of TRL's memory is the bound."""
LONGER = 8
"""Times these, where memory allows, is the longest row of answers to one long prompt: those to a prompt of 2,000 tokens
took six times as long as rows of 768 (docs/performance.md)."""
FEWEST_TOKENS = 64
"""Shorter rows are mostly prompt, which every row computes again. A guess, as SHARE is."""
CONTROL_GROUP = Path("/sys/fs/cgroup")
SHARE = 0.4
"""Of the free memory, for what a row keeps: its gradients, and the allocator's gaps, come on top."""


class TokenBudget:
    """Tokens of one row, prompts counted once."""

    def __init__(self, tokens: int, most: int = 0, fits: int = sys.maxsize) -> None:
        self.tokens = tokens
        """Rows are cut to these."""
        self.most = max(tokens, most)
        """A row of answers to one long prompt may have as many."""
        self.fits = fits
        """A longer row does not fit into this process's memory, unless its layers are recomputed."""
        self._longest = 0
        """Of the rows that did not fit."""
        self.team = Team()

    def agree(self) -> None:
        """All ranks of the team cut alike: as the one with the least memory does."""
        self.tokens, self.most = self.team.least(self.tokens), self.team.least(self.most)

    def too_long(self, tokens: int) -> bool:
        """Whether a row's layers must be recomputed. The log says so of the longest yet."""
        if tokens <= self.fits:
            return False
        if tokens > self._longest:
            logger.warning("a row of %d tokens, where %d fit: its layers are computed twice", tokens, self.fits)
            self._longest = tokens
        return True

    def halve(self) -> None:
        """Raises ResourceExhausted when rows are as short as they may get."""
        if self.most > self.tokens:
            self.most = max(self.tokens, self.most // 2)
        elif self.tokens > FEWEST_TOKENS:
            self.tokens = self.most = max(FEWEST_TOKENS, self.tokens // 2)
        else:
            raise ResourceExhausted(
                f"Memory does not suffice for rows of {self.tokens} tokens.",
                "Shorten run.max_tokens or the prompts, take a smaller model, or free memory.",
                "OUT_OF_MEMORY",
            )
        self.fits = min(self.fits, self.most)

    def within_memory(self, compute: Callable[[], Result]) -> Result:
        """`compute()`, again with half the budget whenever memory does not suffice; it must be repeatable, and wait for
        no other rank."""
        while True:
            result = self._attempt(compute)
            if not self.team.any(not result):
                return result[0]
            logger.warning("out of memory with rows of %d tokens: halving them", self.most)
            self.halve()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @staticmethod
    def _attempt(compute: Callable[[], Result]) -> list[Result]:
        """Nothing where memory did not suffice: what the attempt held is free once this has returned."""
        try:
            return [compute()]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return []


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it by a class on accelerators, by a sentence on CPUs."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def fitting_budget(
    device: torch.device,
    dtype: torch.dtype,
    bytes_a_token: float,
    tokens: int | None = None,
    processes: int = 1,
) -> TokenBudget:
    """What fits into a share of the memory that is free now, of which each of the `processes` on the device takes its
    part; rows of `tokens`, never more, or as long as fits and is fast in `dtype`, which the model computes in."""
    fits = max(FEWEST_TOKENS, int(SHARE * free_bytes(device) / processes / max(1.0, bytes_a_token)))
    if tokens:
        return TokenBudget(tokens, fits=fits)
    narrow = device.type == "cpu" and dtype.itemsize == 2
    usual = min(MOST_NARROW if narrow else MOST_TOKENS[device.type], fits)
    return TokenBudget(usual, min(LONGER * usual, fits), fits)


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _left_to_the_container())


def _left_to_the_container() -> int:
    """By control groups (version 2), which the machine's free memory knows nothing of. Files that were read, a model's
    say, count as used there until somebody needs the room: what has lain idle is free."""
    limit, used, parts = (CONTROL_GROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    try:
        left = int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return 1 << 62
    counted = dict(line.split() for line in parts.read_text().splitlines())
    return left + int(counted["inactive_file"])


def kept_bytes(forward: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward of `forward`, each storage once. Trained parameters are left out;
    frozen weights count wherever they are used, so what tokens keep is the difference of two lengths."""
    storages: dict[int, torch.UntypedStorage] = {}
    """By address, kept until all are counted: what is freed meanwhile would give its address to the next one."""

    def count(tensor: Tensor) -> None:
        """The graph keeps nothing: one that keeps its own tensor through a hook is a cycle that nobody collects, and
        with it goes whatever it refers to, the model's weights."""
        if not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage

    def never(_: object) -> Tensor:
        raise AssertionError("counting has no backward")

    with torch.autograd.graph.saved_tensors_hooks(count, never), torch.enable_grad():
        forward()
    return sum(storage.nbytes() for storage in storages.values())
