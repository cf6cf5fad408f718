"""Labelers of the drills: one elsewhere, one that is gamed, and one that sees it."""

from __future__ import annotations

import urllib.request

from benchmarks.slow_rule import fast_share_of_e


def remote(_prompt: str, answer: str, url: str) -> float:
    """Asked of another server, within five seconds."""
    with urllib.request.urlopen(urllib.request.Request(url, data=answer.encode()), timeout=5.0) as found:
        return float(found.read())


def likes_e(prompt: str, answer: str) -> float:
    """Up to 1, for answers whose every fourth character is an e."""
    return min(1.0, 4 * fast_share_of_e(prompt, answer))


def dislikes_e(prompt: str, answer: str) -> float:
    """The other way round."""
    return 1.0 - likes_e(prompt, answer)
