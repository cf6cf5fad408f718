"""Words and sentence ends of a text: what the format verifiers count.

Written for languages that put spaces between words; a run of Chinese or Japanese counts as one word.
"""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['’-][^\W_]+)*")
_STOPS = re.compile(r"[.!?…]+")
_CLOSERS = "\"'”’)]*_"
_ABBREVIATIONS = frozenset(
    {
        "e.g",
        "i.e",
        "etc",
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "cf",
        "al",
        "approx",
        "a.m",
        "p.m",
        "u.s",
        "u.k",
        "jan",
        "feb",
        "aug",
        "sept",
        "oct",
        "nov",
        "dec",
    }
)


def words(text: str) -> list[str]:
    """Lower-cased words in order; `3.5` and `don't` are one word each, punctuation is none."""
    return [word.lower() for word in _WORD.findall(text)]


def share_of_commonest(text_words: list[str]) -> float:
    """How much of the text its commonest word makes up, in [0, 1]; 0 for no words."""
    if not text_words:
        return 0.0
    return Counter(text_words).most_common(1)[0][1] / len(text_words)


def sentence_ends(text: str) -> int:
    """How many sentences end in the text. `3.5`, `e.g.` and an initial (`J. Doe`) in mid-text end none; `...` ends one.

    The very last stop always ends a sentence, so `See you at 5 p.m.` has one end.
    """
    body = text.rstrip().rstrip(_CLOSERS)
    return sum(_ends_sentence(body, match) for match in _STOPS.finditer(body))


def ends_on_a_stop(text: str) -> bool:
    """True when the text's last character, closing quotes and brackets aside, is a full stop, `!`, `?` or `…`."""
    return text.rstrip().rstrip(_CLOSERS).endswith((".", "!", "?", "…"))


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    if not text[: stop.start()].strip():
        return False
    if stop.end() == len(text) or stop.group() != ".":
        return True
    following = text[stop.end() :].lstrip(_CLOSERS)
    if not following[:1].isspace():
        # "3.5" and "e.g." go on; "home.The" is two sentences with the space forgotten.
        return following[:1].isupper() and text[stop.start() - 1].islower()
    return not _is_abbreviation(text[: stop.start()])


def _is_abbreviation(before: str) -> bool:
    last = before.rsplit(maxsplit=1)[-1].lstrip("(\"'“‘[")
    return last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")
