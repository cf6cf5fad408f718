"""A labeler that takes its time, as people and judges over a network do."""

from __future__ import annotations

import time

SECONDS = 4.0


def share_of_e(prompt: str, answer: str) -> float:
    """How many of the answer's characters are an e, after SECONDS."""
    time.sleep(SECONDS)
    return fast_share_of_e(prompt, answer)


def fast_share_of_e(_prompt: str, answer: str) -> float:
    return answer.count("e") / max(1, len(answer))
