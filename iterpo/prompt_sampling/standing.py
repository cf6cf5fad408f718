"""What a prompt sampler may look at. Draws are a pure function of it: a resumed run draws what it would have drawn."""

from __future__ import annotations

import math
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


def weighted(log_weights: Sequence[float], count: int, standing: Standing) -> list[int]:
    """Indices without repetition, each draw in proportion to the weights that are left: the largest of log w plus
    Gumbel noise. In logarithms, so that weights of any size keep their order; minus infinity is drawn last."""
    draw = random.Random(f"{standing.seed}/{standing.drawn}")
    noise = [-math.log(-math.log(draw.uniform(1e-300, 1.0 - 1e-16))) for _ in log_weights]
    keys = [(w + n, n, i) for i, (w, n) in enumerate(zip(log_weights, noise, strict=True))]
    return [i for _, _, i in sorted(keys, reverse=True)[:count]]
