"""The number an answer ends on, for maths prompts with a known result.

Read: thousands separators (1,000), decimals, a leading minus, `$` and `%`, GSM8K's `#### 42`. A percentage counts as
its number (50% is 50). Not read: fractions (3/4), words (seven), exponents, the decimal comma.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-\u2212+]?)\$?(?P<inner>[-\u2212]?)(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_MARKER = "####"


def last_number(text: str) -> Decimal | None:
    """The last number of the text, or the first after its last `####`; None when there is none."""
    _, marker, after = text.rpartition(_MARKER)
    marked = [*_NUMBER.finditer(after)] if marker else []
    matches = marked[:1] or [*_NUMBER.finditer(text)][-1:]
    return _value(matches[0]) if matches else None


def _value(match: re.Match[str]) -> Decimal:
    number = Decimal(match["digits"].replace(",", ""))
    negative = (match["sign"] + match["inner"]).count("-") + (match["sign"] + match["inner"]).count("\u2212")
    return -number if negative == 1 else number
