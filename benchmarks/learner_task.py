"""What both sides of the learner's comparison are given: for single updates 8 x 8 completions of random tokens and
their rewards; for whole steps the demo's prompts and its reward."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from iterpo.demo.settings import demo_run
from iterpo.labeling.verifiers import one_friendly_sentence
from iterpo.types import Completion, FinishReason, Message, Prompt

GROUPS, SIZE, COMPLETION_TOKENS = 8, 8, 48
LORA_RANK, LORA_ALPHA = 16, 32
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


def settings(method: str, seed: int = 0, iterations: int = 1) -> dict[str, Any]:
    """Of a run: the demo's, in one step an iteration; DPO online with two answers a prompt, as TRL draws them."""
    run = demo_run({"dpo": "offline_dpo"}.get(method, method), seed, iterations) | {"minibatches": 1}
    if method == "online_dpo":
        run |= {"prompts_per_iteration": GROUPS * SIZE // 2, "response_sampling": {"name": "random_pair", "size": 2}}
    return run


def reward_of(text: str, ended: bool) -> float:
    """The demo's, of an answer to any prompt: it reads the text alone, and whether the policy ended it."""
    reason = FinishReason.STOP if ended else FinishReason.LENGTH
    completion = Completion("c", "p", "g", text, (), (), (), reason, 0, "")
    return one_friendly_sentence(Prompt("p", (Message("user", ""),)), completion)
