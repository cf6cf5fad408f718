"""What both sides of the learner's comparison are given: 8 x 8 completions of random tokens, and their rewards."""

from __future__ import annotations

import random
from dataclasses import dataclass

GROUPS, SIZE, COMPLETION_TOKENS = 8, 8, 48
LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE = 1e-5
VOCABULARY = 49_000


@dataclass(frozen=True)
class Task:
    prompts: list[tuple[int, ...]]
    """One a group."""
    completions: list[list[tuple[int, ...]]]
    """[GROUPS][SIZE]: from a quarter of COMPLETION_TOKENS to all of them."""
    rewards: list[list[float]]

    @property
    def tokens(self) -> int:
        """Of prompts and completions, every completion with its prompt: what a learner without sharing computes."""
        return sum(len(p) + len(c) for p, group in zip(self.prompts, self.completions, strict=True) for c in group)


def task(prompt_tokens: int, seed: int = 0) -> Task:
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, VOCABULARY) for _ in range(count))

    lengths = range(COMPLETION_TOKENS // 4, COMPLETION_TOKENS + 1)
    return Task(
        [ids(prompt_tokens) for _ in range(GROUPS)],
        [[ids(draw.choice(lengths)) for _ in range(SIZE)] for _ in range(GROUPS)],
        [[draw.random() for _ in range(SIZE)] for _ in range(GROUPS)],
    )
