"""Text with nothing hidden in it: what a reader sees is what the policy wrote.

Bidirectional controls can reorder what is read ("the answer is not right" out of another text), zero-width and tag
characters can hide words or make two different answers look alike. Each becomes a placeholder that names it. The price:
joiners that Persian, Indic scripts and some emoji use legitimately are named as well.
"""

from __future__ import annotations

import re

LONGEST_SHOWN = 200_000
"""Characters of one text that are sent to a browser; no person compares more."""

_HIDDEN = re.compile(
    "["
    "\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # control characters, without tab and line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # look like nothing, or like a space
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero width, bidirectional controls, separators
    "\ud800-\udfff"  # half a character
    "\U000e0000-\U000e0fff"  # tags and further variation selectors: whole sentences fit in there
    "]"
)


def visible(text: str) -> str:
    """`text` with `⟨U+202E⟩` for every character that cannot be seen, and cut at LONGEST_SHOWN."""
    shown = _HIDDEN.sub(_name, text[:LONGEST_SHOWN].replace("\r\n", "\n"))
    left_out = len(text) - LONGEST_SHOWN
    return f"{shown}\n\n⟨{left_out} more characters are not shown⟩" if left_out > 0 else shown


def _name(hidden: re.Match[str]) -> str:
    return f"⟨U+{ord(hidden[0]):04X}⟩"
