"""A user's own rules, as the configuration names them."""

from __future__ import annotations

import threading
import time

from iterpo.types import Completion, Prompt


def starts_with(prompt_text: str, completion_text: str, letter: str = "A") -> float:
    """1 when the answer starts with a letter."""
    return float(completion_text.startswith(letter))


def short_for(prompt: Prompt, completion: Completion) -> float:
    return 1.0 if len(completion.token_ids) <= len(prompt.messages) + 1 else 0.25


NOT_A_FUNCTION = 7


def slowly(prompt_text: str, completion_text: str) -> float:
    time.sleep(0.1)
    return 0.5


def never(prompt_text: str, completion_text: str) -> float:
    threading.Event().wait(600)
    return 1.0
