"""What people's comparisons of a group's answers, taken together, say about their order.

A comparison's `p_first_wins` is the probability that the first is truly the better one, given its own votes. The other
comparisons of the two tell more: whoever beat all the others beats the worst of them almost surely, even if the two
met once and that vote was wrong. The model is noisy sorting (Braverman & Mossel 2008, "Noisy Sorting Without
Resampling") with each comparison's own reliability: a hidden order, every order equally likely beforehand, and
    P(order | comparisons) ~ product over comparisons of p where the order agrees with it, 1 - p where it does not.
The sum over all n! orders is exact, by dynamic programming over the 2^n sets of answers that may stand at the top.

A tie (p = 1/2) says nothing. Not implemented: distances. A comparison of two close answers is held to be as reliable
as one of two distant ones, as Dawid-Skene does; real people err more often on close ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from iterpo.types import Preference

SURE = 0.02
"""A comparison is never taken for more certain than this: it comes from a handful of votes."""
MOST = 12
"""Answers that can be ordered together: 8 take 2 ms, 12 take 65 ms."""


def pairwise_posterior(names: Sequence[str], preferences: Sequence[Preference]) -> dict[str, dict[str, float]]:
    """[first][second] -> the probability that the first is the better one, of these answers (completion ids). What is
    said of others is left out. Raises ValueError for more than MOST answers."""
    if len(names) > MOST:
        raise ValueError(f"{len(names)} answers cannot be ordered together; at most {MOST} can.")
    above = _likelihoods(names, preferences)
    everybody = (1 << len(names)) - 1
    # tops[S]: mass of the orders of S, times what S's members being above all others makes likely.
    # rests[S]: mass of the orders of everybody else, below S.
    tops, rests = [1.0] + [0.0] * everybody, [0.0] * everybody + [1.0]
    for top in range(everybody + 1):
        for i, bit in _outside(top, len(names)):
            tops[top | bit] += tops[top] * above[i][everybody ^ top ^ bit]
    for top in reversed(range(everybody)):
        rests[top] = sum(above[i][everybody ^ top ^ bit] * rests[top | bit] for i, bit in _outside(top, len(names)))
    wins = {name: dict.fromkeys(names, 0.0) for name in names}
    for top in range(everybody):
        outside = _outside(top, len(names))
        for i, bit in outside:
            mass = tops[top] * above[i][everybody ^ top ^ bit] * rests[top | bit] / tops[everybody]
            for j, _ in outside:
                wins[names[i]][names[j]] += mass
    for name in names:
        del wins[name][name]
    return wins


def _outside(top: int, count: int) -> list[tuple[int, int]]:
    """(number, bit) of the answers that are not in the set."""
    return [(i, 1 << i) for i in range(count) if not top >> i & 1]


def _likelihoods(names: Sequence[str], preferences: Sequence[Preference]) -> list[list[float]]:
    """[n][2^n] how likely the comparisons of an answer with a set of others are if it is better than all of those."""
    number = {name: i for i, name in enumerate(names)}
    pair = [[1.0] * len(names) for _ in names]
    for preference in preferences:
        if not {preference.first_id, preference.second_id} <= number.keys():
            continue
        i, j = number[preference.first_id], number[preference.second_id]
        p = min(max(preference.p_first_wins, SURE), 1 - SURE)
        pair[i][j] *= p
        pair[j][i] *= 1 - p
    sets = range(1 << len(names))
    return [[prod(p for j, p in enumerate(row) if below >> j & 1) for below in sets] for row in pair]
