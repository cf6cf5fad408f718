"""Prompt files: JSON Lines, one example a line, every mistake named with its line.

    {"prompt": "Give me a tip."}                                             online
    {"messages": [{"role": "user", "content": "..."}], "answer": "42"}       online, with a reference answer
    {"prompt": "...", "chosen": "...", "rejected": "..."}                    offline pairs (TRL's format); optional
                                             "values": {"NAME": gap, ...}    how much better in each value
    {"prompt": "...", "completion": "..."}                                   demonstrations
    {"text": "..."}                                                          documents (pretraining)

Optional on every line: "id" (without one, a digest of the messages) and "difficulty" (a number, for a curriculum).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iterpo.errors import InvalidInput
from iterpo.types import DOCUMENT, Example, Message, Prompt

KEYS = {"id", "prompt", "messages", "answer", "chosen", "rejected", "completion", "difficulty", "values", "text"}


def read(path: Path) -> list[Example]:
    """Raises InvalidInput: PROMPT_FILE_MISSING, PROMPT_FILE_EMPTY, PROMPT_FILE_LINE, DUPLICATE_PROMPT."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"Prompt file {path} cannot be read: {getattr(error, 'strerror', None) or error}.",
            "Name a JSON Lines file (run.prompts, run.heldout or run.pairs in iterpo.toml).",
            "PROMPT_FILE_MISSING",
        ) from error
    examples = [_example(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise InvalidInput(
            f"Prompt file {path} holds no prompts.", 'Write lines like {"prompt": "..."}.', "PROMPT_FILE_EMPTY"
        )
    _check_unique(examples, path)
    return examples


def _example(line: str, place: str) -> Example:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise _bad(place, f"is not JSON ({error})") from error
    known = isinstance(raw, dict) and raw.keys() <= KEYS
    if not known or sum(key in raw for key in ("prompt", "messages", "text")) != 1:
        raise _bad(place, f"needs `prompt`, `messages` or `text`, and may have {', '.join(sorted(KEYS))} only")
    if "text" in raw:
        text = _text(raw, "text", place)
        message = (Message(DOCUMENT, text),)
        return Example(Prompt(str(raw.get("id") or _digest(message)), message), (text,))
    messages = _messages(raw, place)
    prompt = Prompt(str(raw.get("id") or _digest(messages)), messages, str(raw.get("answer", "")))
    if ("chosen" in raw) != ("rejected" in raw):
        raise _bad(place, "has one of `chosen` and `rejected` without the other")
    hard = _difficulty(raw, place)
    if "chosen" in raw:
        answers = (_text(raw, "chosen", place), _text(raw, "rejected", place))
        return Example(prompt, answers, 1.0, hard, _values(raw, place))
    return Example(prompt, (_text(raw, "completion", place),) if "completion" in raw else (), difficulty=hard)


def _values(raw: dict[str, Any], place: str) -> dict[str, float]:
    values = raw.get("values", {})
    if not isinstance(values, dict) or not all(_is_number(gap) for gap in values.values()):
        raise _bad(place, "has `values` that are no object of finite numbers")
    return values


def _difficulty(raw: dict[str, Any], place: str) -> float | None:
    value = raw.get("difficulty")
    if value is not None and not _is_number(value):
        raise _bad(place, "has a `difficulty` that is no finite number")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _messages(raw: dict[str, Any], place: str) -> tuple[Message, ...]:
    try:
        given = [{"role": "user", "content": raw["prompt"]}] if "prompt" in raw else raw["messages"]
        messages = tuple(Message(m["role"], m["content"]) for m in given)
    except (KeyError, TypeError) as error:
        raise _bad(place, "has messages without role or content") from error
    if not messages or not all(isinstance(m.content, str) and m.content.strip() for m in messages):
        raise _bad(place, "has an empty prompt")
    return messages


def _text(raw: dict[str, Any], key: str, place: str) -> str:
    value = raw[key]
    if isinstance(value, list):  # TRL also writes the answer as a list of messages
        value = "".join(m.get("content", "") for m in value if isinstance(m, dict))
    if not isinstance(value, str) or not value.strip():
        raise _bad(place, f"has an empty `{key}`")
    return value


def _digest(messages: Sequence[Message]) -> str:
    text = json.dumps([[m.role, m.content] for m in messages])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_unique(examples: Sequence[Example], path: Path) -> None:
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for example in examples:
        key = example.prompt.prompt_id, example.answers
        if key in seen:
            raise InvalidInput(
                f"Prompt {example.prompt.prompt_id!r} is twice in {path}.",
                "Remove one, or give them different ids.",
                "DUPLICATE_PROMPT",
            )
        seen.add(key)


def _bad(place: str, what: str) -> InvalidInput:
    return InvalidInput(f"{place} {what}.", "Mend the line (see iterpo/prompts.py for the format).", "PROMPT_FILE_LINE")
