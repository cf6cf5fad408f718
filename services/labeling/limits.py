"""What a request may not exceed, checked before anything is converted or stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from iterpo.errors import InvalidInput

MAX_GROUPS = 1024
MAX_ITEMS = 4096
MAX_LABELS = 1024
MAX_LEASES = 64
MAX_LEASE_SECONDS = 24 * 3600.0
MAX_RATIONALE_CHARACTERS = 10_000
MAX_ANSWER_CHARACTERS = 200_000
MAX_ASPECTS = 32
MAX_LANGUAGES = 32


def at_most(what: str, items: Sequence[Any], most: int) -> None:
    """Raises InvalidInput for none or too many."""
    if not 1 <= len(items) <= most:
        raise InvalidInput(
            f"The request has {len(items)} {what}.", f"Send between 1 and {most} in one request.", "TOO_MANY_OR_NONE"
        )


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises InvalidInput unless low <= value <= high; NaN is in no range."""
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidInput(f"{name} is {value:g}.", f"Use a number from {low:g} to {high:g}.", "OUT_OF_RANGE")
