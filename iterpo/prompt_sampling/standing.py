"""What a prompt sampler may look at. Draws are a pure function of it: a resumed run draws what it would have drawn."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from iterpo.types import Example, Seen


@dataclass(frozen=True)
class Standing:
    """Where the run stands; saved in every checkpoint."""

    drawn: int
    """Prompts drawn so far."""
    iteration: int
    """Iterations done."""
    seed: int
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By prompt id: how its last group went. Kept only for samplers that remember."""


class PromptSampler(Protocol):
    name: ClassVar[str]
    remembers: ClassVar[bool]
    """Whether it looks at how earlier groups went."""

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        """`count` indices into the pool; fewer when the sampler holds prompts back and the pool is small."""
        ...


def weighted(weights: Sequence[float], count: int, standing: Standing) -> list[int]:
    """Indices without repetition, each draw in proportion to the weights that are left (Efraimidis and Spirakis 2006:
    the largest of u^(1/w)). Zero weights are drawn last."""
    draw = random.Random(f"{standing.seed}/{standing.drawn}")
    keys = [(draw.random() ** (1 / w) if w > 0 else -draw.random(), i) for i, w in enumerate(weights)]
    return [i for _, i in sorted(keys, reverse=True)[:count]]
