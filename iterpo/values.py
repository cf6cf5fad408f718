"""Preferences over several named values: which pairs all values agree on, and what one value alone would say.

A line of a pairs file may carry `"values": {"helpful": 0.4, "honest": -0.1}`: by how much the chosen answer is better
than the rejected one in each value. VC-Soup (arXiv:2603.18113) keeps the pairs whose gaps point the same way and trains
one policy a value on them; merging stands in iterpo/policies/soup.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from iterpo.errors import InvalidConfig
from iterpo.types import Example


def consistency(gaps: Mapping[str, float]) -> float:
    """Cosine of the vector of gaps with the all-ones vector, in [-1, 1]; 0 when no value tells the answers apart."""
    length = math.sqrt(sum(g * g for g in gaps.values()))
    return sum(gaps.values()) / (length * math.sqrt(len(gaps))) if length else 0.0


def chosen_by(
    examples: Sequence[Example], value: str, min_consistency: float | None
) -> tuple[list[Example], Counter[str]]:
    """The pairs that stay, each turned round where `value` prefers the other answer; and how many were left out, by
    reason (`inconsistent`, `indifferent`). Without a value and a threshold, all of them as they are.

    Raises InvalidConfig (NO_VALUES) for a pair that does not say what is asked of it, or when none is left.
    """
    dropped: Counter[str] = Counter()
    if not value and min_consistency is None:
        return list(examples), dropped
    kept = []
    for example in examples:
        if not example.values or (value and value not in example.values):
            known = ", ".join(example.values) or "none"
            raise InvalidConfig(
                f"Pair {example.prompt.prompt_id!r} has values {known}, not {value or 'any'!r}.",
                'Write "values": {"NAME": gap, ...} on every line of run.pairs.',
                "NO_VALUES",
            )
        if min_consistency is not None and abs(consistency(example.values)) < min_consistency:
            dropped["inconsistent"] += 1
        elif value and example.values[value] == 0:
            dropped["indifferent"] += 1
        else:
            kept.append(_turned(example) if value and example.values[value] < 0 else example)
    if not kept:
        raise InvalidConfig(
            f"None of {len(examples)} pairs is left: {dict(dropped)}.", "Lower run.min_consistency.", "NO_VALUES"
        )
    return kept, dropped


def _turned(example: Example) -> Example:
    gaps = {name: -gap for name, gap in example.values.items()}
    return replace(example, answers=example.answers[::-1], values=gaps)
