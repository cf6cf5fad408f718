"""A weighted split: `serving=0.9,candidate=0.1` sends a tenth of the requests to the candidate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from iterpo.errors import InvalidInput

MOST = 8
"""Parts of a split."""


def choose(policy: str, key: str, known: Callable[[str], object] = lambda _name: None) -> str:
    """The part that a request goes to: the same `key` (a user, or anything unique to the request) always the same one,
    keys in proportion to the weights, whatever their sum. What is no split is returned as it is. `known` is called with
    every part, to raise for those that are no policies: all users shall hear of a wrong part, not the few who meet it.
    Raises InvalidInput (BAD_SPLIT).

    A part keeps the keys that it has when its weight grows, and only then gets others, as long as the order of the
    parts stays: a canary that is widened does not change what its users have.
    """
    if "=" not in policy:
        return policy
    parts = [part.partition("=") for part in policy.split(",")]
    names, weights = [name.strip() for name, _, _ in parts], [_weight(text) for _, _, text in parts]
    total = math.fsum(weights)
    if len(parts) > MOST or not all(names) or min(weights) < 0 or not 0 < total < math.inf:
        raise InvalidInput(
            f"{policy[:100]!r} is no split.", f"Write up to {MOST} parts, like serving=0.9,candidate=0.1.", "BAD_SPLIT"
        )
    lot = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64 * total
    for name in names:
        known(name)
    # From the last part on: the small new one, written last, takes its keys from the others' far end.
    for name, weight in reversed(list(zip(names, weights, strict=True))):
        if lot < weight:
            return name
        lot -= weight
    return names[0]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
