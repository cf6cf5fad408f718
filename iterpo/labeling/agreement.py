"""How much annotators agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number.

Cohen 1960, "A coefficient of agreement for nominal scales"; Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability", section C (nominal data, any number of observers, missing values). 1 is perfect agreement, 0 is what
chance gives, below 0 is systematic disagreement. Not implemented: weighted kappa, ordinal and interval alpha.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    value: float | None
    """At most 1; None where the figure is not defined: never NaN."""
    undefined_because: str
    """A sentence for the lead; empty when `value` is set."""
    items: int
    """Items with two labels or more: those that say something about agreement."""


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> Agreement:
    """(observed - expected) / (1 - expected) agreement of two raters; one pair of symbols an item."""
    if not pairs:
        return Agreement(None, "No item was labelled by both.", 0)
    n = len(pairs)
    of_first, of_second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    # Counts stay integers up to the end: unanimity is exact, not a rounding error away.
    agreed, by_chance = sum(a == b for a, b in pairs), sum(of_first[s] * of_second[s] for s in of_first)
    if by_chance == n * n:
        return Agreement(None, _unanimous(next(iter(of_first)), n), n)
    return Agreement((agreed * n - by_chance) / (n * n - by_chance), "", n)


def krippendorff_alpha(units: Mapping[str, Sequence[Hashable]]) -> Agreement:
    """1 - observed / expected disagreement, nominal. `units`: item -> its labels; items with fewer than two are left
    out, as the coincidence matrix does."""
    kept = [Counter(labels) for labels in units.values() if len(labels) > 1]
    if not kept:
        return Agreement(None, "No item has labels of two people yet.", 0)
    totals: Counter[Hashable] = sum(kept, Counter())
    n = totals.total()
    if len(totals) == 1:
        return Agreement(None, _unanimous(next(iter(totals)), len(kept)), len(kept))
    observed = sum(_disagreeing_pairs(counts) / (counts.total() - 1) for counts in kept)
    return Agreement(1.0 - (n - 1) * observed / _disagreeing_pairs(totals), "", len(kept))


def _disagreeing_pairs(counts: Counter[Hashable]) -> int:
    """Ordered pairs of two different labels' positions whose symbols differ."""
    return counts.total() ** 2 - sum(count * count for count in counts.values())


def _unanimous(symbol: Hashable, items: int) -> str:
    many = "The one item that two people labelled" if items == 1 else f"All {items} items that two people labelled"
    return f"{many} got only `{symbol}`: with one symbol in use, agreement cannot be told from chance."
