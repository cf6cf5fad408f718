"""Cut a batch into micro-batches that fit a budget of tokens. Which cut is taken changes no gradient (invariant 5)."""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of sequences, grouped so that width x count <= budget, padding included.

    Neighbours in length go together, the longest first: an allocation that will not fit fails at once. A sequence
    longer than the budget gets a micro-batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
