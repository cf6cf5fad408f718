"""Bradley & Terry 1952: strengths of players (policy versions) from comparisons, with bootstrap intervals.

P(a beats b) = sigmoid(strength_a - strength_b); a tie is half a win for each. The log-likelihood is concave (Hunter
2004, "MM algorithms for generalized Bradley-Terry models"); Newton's method reaches its top in a few steps, where MM
needs thousands on a chain of players. Hunter's assumption 1 (a finite optimum needs every player to have beaten every
other, if only through others) fails on young tables, so everybody also plays `anchor` virtual comparisons, half of them
won, against a player of strength 0, and a row whose strength rests on that says so in its `note`.

Not implemented: ties as a third outcome (Rao & Kupper, Davidson), an advantage of the first place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iterpo.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_STEPS = 200
MOST_NUMBERS = 1_000_000
"""Of the tables of resamples that are fitted at the same time: eight megabytes."""
LARGEST_STEP = 2.0
"""Log-odds a player may move in one Newton step: a full step from far away can overshoot for ever."""


@dataclass(frozen=True, slots=True)
class Comparison:
    first: str
    second: str
    p_first_wins: float
    """[0, 1]; 0.5 is a tie."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Strength:
    name: str
    strength: float
    """Log-odds against a player of mean strength."""
    low: float
    high: float
    """Percentile interval of the bootstrap."""
    comparisons: float
    """Sum of the weights of those it took part in."""
    win_rate: float
    """[0, 1], ties half."""
    note: str = ""
    """Why the strength or its interval says less than it seems to; empty when nothing is amiss."""


def bradley_terry(
    comparisons: Sequence[Comparison],
    *,
    anchor: float = 0.1,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> list[Strength]:
    """Everybody who was compared with weight, strongest first. Deterministic by `seed`.

    The bootstrap resamples whole comparisons; of a resample in which a player does not occur, he has no figure.
    """
    kept = [_checked(c) for c in comparisons if c.weight > 0]
    if not kept:
        return []
    names = sorted({name for c in kept for name in (c.first, c.second)})
    table = _Table(kept, names)
    wins = table.wins(np.ones(len(kept)))
    found = fit(wins, anchor)
    low, high = _intervals(table, found, anchor, resamples, level, seed)
    played, won = (wins + wins.T).sum(axis=1), wins.sum(axis=1)
    notes = _notes(wins, names)
    rows = [
        Strength(
            name,
            float(found[i]),
            float(low[i]),
            float(high[i]),
            float(played[i]),
            float(won[i] / played[i]),
            notes[i],
        )
        for i, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: (-row.strength, row.name))


def fit(wins: Floats, anchor: float = 0.1, start: Floats | None = None) -> Floats:
    """[..., N] strengths of mean 0 from wins [..., N, N] (row beat column, weighted), of one table or of many at once.
    `anchor` 0 is maximum likelihood, which is finite only when everybody beat everybody, if only through others.
    `start` is where the steps begin: it changes how many there are, not where they end."""
    strength = _newton(wins, anchor, np.zeros(wins.shape[:-1]) if start is None else start)
    centred: Floats = strength - strength.mean(axis=-1, keepdims=True)
    return centred


def _newton(wins: Floats, anchor: float, strength: Floats) -> Floats:
    """Where the gradient is zero; not centred."""
    played, won = wins + wins.swapaxes(-1, -2), wins.sum(axis=-1)
    diagonal = np.arange(wins.shape[-1])
    for _ in range(MAX_STEPS):
        p = 1.0 / (1.0 + np.exp(strength[..., None, :] - strength[..., :, None]))
        to_anchor = 1.0 / (1.0 + np.exp(-strength))
        gradient = won - (played * p).sum(axis=-1) + anchor * (0.5 - to_anchor)
        curvature = played * p * (1.0 - p)
        hessian = -curvature
        hessian[..., diagonal, diagonal] += curvature.sum(axis=-1) + anchor * to_anchor * (1.0 - to_anchor)
        step = _solved(hessian, gradient, singular=not anchor)
        largest = np.abs(step).max(axis=-1, keepdims=True)
        strength = strength + step * np.minimum(1.0, LARGEST_STEP / np.maximum(largest, 1e-300))
        if float(largest.max()) < 1e-10:
            break
    return strength


def _solved(hessian: Floats, gradient: Floats, singular: bool) -> Floats:
    """Without an anchor the Hessian is singular along "everybody stronger by the same"."""
    column = gradient[..., None]
    found = (np.linalg.pinv(hessian) @ column if singular else np.linalg.solve(hessian, column))[..., 0]
    return np.asarray(found, np.float64)


class _Table:
    """Comparisons as arrays, so that a resample is one sum."""

    def __init__(self, comparisons: Sequence[Comparison], names: Sequence[str]) -> None:
        number = {name: i for i, name in enumerate(names)}
        self.size = len(names)
        first = np.array([number[c.first] for c in comparisons])
        second = np.array([number[c.second] for c in comparisons])
        p = np.array([c.p_first_wins for c in comparisons])
        weight = np.array([c.weight for c in comparisons])
        self._cells = np.concatenate([first * self.size + second, second * self.size + first])
        self._won = np.concatenate([weight * p, weight * (1.0 - p)])
        self.comparisons = len(comparisons)

    def wins(self, times: Floats) -> Floats:
        """[N, N]; `times` [comparisons] is how often each counts."""
        flat: Floats = np.bincount(self._cells, self._won * np.tile(times, 2), self.size**2).astype(np.float64)
        return flat.reshape(self.size, self.size)


def _intervals(
    table: _Table, whole: Floats, anchor: float, resamples: int, level: float, seed: int
) -> tuple[Floats, Floats]:
    """`whole`: the strengths without resampling, from which a resample's are a step or two away."""
    rng = np.random.default_rng(seed)
    n, size = table.comparisons, table.size
    parts = []
    for first in range(0, resamples, many := max(1, MOST_NUMBERS // size**2)):
        times = rng.multinomial(n, np.full(n, 1.0 / n), min(many, resamples - first)).astype(np.float64)
        wins = np.stack([table.wins(row) for row in times])
        played = (wins + wins.swapaxes(-1, -2)).sum(axis=-1) > 0
        strength = np.where(played, _newton(wins, anchor, np.broadcast_to(whole, played.shape)), np.nan)
        parts.append(strength - np.nanmean(strength, axis=-1, keepdims=True))
    low, high = np.nanquantile(np.concatenate(parts), [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return low, high


def _checked(comparison: Comparison) -> Comparison:
    if comparison.first == comparison.second:
        raise InvalidInput(f"{comparison.first} was compared with itself.", "Leave out pairs of one policy version.")
    if not 0.0 <= comparison.p_first_wins <= 1.0:
        raise InvalidInput(f"p_first_wins is {comparison.p_first_wins}.", "Give a probability in [0, 1].")
    return comparison


def _notes(wins: Floats, names: Sequence[str]) -> list[str]:
    beat = _reachable(wins > 0)
    compared = _reachable((wins + wins.T) > 0)
    return [_note(i, wins, beat, compared, names) for i in range(len(names))]


def _note(i: int, wins: Floats, beat: Bools, compared: Bools, names: Sequence[str]) -> str:
    said = []
    strangers = [names[j] for j in np.flatnonzero(~compared[i]) if j != i]
    if strangers:
        said.append(f"Never compared, not even through others, with {_listed(strangers)}: their order says nothing.")
    if not wins[:, i].any():
        said.append("Never lost: how strong it is cannot be told, only that it is stronger.")
    elif not wins[i].any():
        said.append("Never won: how weak it is cannot be told, only that it is weaker.")
    else:
        one_way = [names[j] for j in np.flatnonzero(compared[i] & (beat[i] != beat[:, i])) if j != i]
        if one_way:
            said.append(f"All won or all lost against {_listed(one_way)}, even through others: the gap is open-ended.")
    return " ".join(said)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _reachable(edges: Bools) -> Bools:
    """[N, N] whether a path leads from row to column (Warshall 1962)."""
    reach = edges.copy()
    for k in range(len(reach)):
        reach |= reach[:, k][:, None] & reach[k][None, :]
    return reach
