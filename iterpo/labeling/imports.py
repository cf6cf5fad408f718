"""Preference files of other programs, as feedback: one JSON object a line.

    trl            prompt, chosen, rejected: strings or lists of messages; without `prompt`, chosen and rejected are
                   whole conversations with the prompt in common
    kto            prompt, completion, label (true: thumb up)
    rewardbench    prompt, chosen, rejected
    hh             chosen, rejected: "\\n\\nHuman: ...\\n\\nAssistant: ..." (Anthropic HH, arXiv:2204.05862)
    ultrafeedback  instruction or prompt, and completions with response and overall_score (arXiv:2310.01377): the best
                   against the worst; or chosen and rejected as messages, with score_chosen and score_rejected

A file is read as a whole before anything of it is stored; every line that cannot be read is named with its number.
Not implemented: events (a store is copied as a file), rankings of more than two answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from iterpo.errors import InvalidInput
from iterpo.types import Message

MOST_NAMED = 10
"""Bad lines that an error lists."""
_TURN = re.compile(r"\n\nHuman:|\n\nAssistant:")
_ROLES = ("system", "user", "assistant")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Imported:
    """One line: a prompt, and either two answers of which the first is better, or one with a thumb."""

    line: int
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    """[2] the better one first, or [1]."""
    up: bool = True
    """Of one answer."""


class BadRow(ValueError):
    """What is wrong with a line, as the end of a sentence."""


def read_rows(lines: Iterable[str], format_name: str) -> list[Imported]:
    """Raises InvalidInput: IMPORT_ROWS, naming up to MOST_NAMED bad lines, or IMPORT_EMPTY."""
    parse, found, bad = FORMATS[format_name], list[Imported](), list[str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_one(number, line, parse))
        except BadRow as error:
            bad.append(f"line {number} {error}")
    if bad:
        more = f", and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise InvalidInput(
            f"{len(bad)} {'line is' if len(bad) == 1 else 'lines are'} not in the format {format_name!r}: "
            f"{'; '.join(bad[:MOST_NAMED])}{more}.",
            "Mend or remove them, or name another --format; nothing was imported.",
            "IMPORT_ROWS",
        )
    if not found:
        raise InvalidInput("The file holds no rows.", "Name a JSON Lines file.", "IMPORT_EMPTY")
    return found


def _one(number: int, line: str, parse: Callable[[Row], tuple[Any, tuple[str, ...], bool]]) -> Imported:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadRow(f"is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadRow("is no JSON object")
    prompt, answers, up = parse(row)
    if len(answers) == 2 and answers[0] == answers[1]:
        raise BadRow("prefers an answer to itself")
    return Imported(number, prompt, answers, up)


def _trl(row: Row) -> tuple[Any, tuple[str, ...], bool]:
    if "prompt" in row:
        return _prompt(row["prompt"]), (_answer(row, "chosen"), _answer(row, "rejected")), True
    chosen, rejected = _messages(row.get("chosen"), "chosen"), _messages(row.get("rejected"), "rejected")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1] or {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        raise BadRow("has conversations that do not differ in their last answer alone")
    return chosen[:-1], (chosen[-1].content, rejected[-1].content), True


def _kto(row: Row) -> tuple[Any, tuple[str, ...], bool]:
    if not isinstance(row.get("label"), bool):
        raise BadRow("has a `label` that is neither true nor false")
    return _prompt(row.get("prompt")), (_answer(row, "completion"),), bool(row["label"])


def _rewardbench(row: Row) -> tuple[Any, tuple[str, ...], bool]:
    return _prompt(row.get("prompt")), (_answer(row, "chosen"), _answer(row, "rejected")), True


def _hh(row: Row) -> tuple[Any, tuple[str, ...], bool]:
    chosen, rejected = _turns(row, "chosen"), _turns(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("has conversations that differ before their last answer")
    return chosen[:-1], (chosen[-1].content, rejected[-1].content), True


def _ultrafeedback(row: Row) -> tuple[Any, tuple[str, ...], bool]:
    if "completions" not in row:
        prompt, answers, _ = _trl(
            row if isinstance(row.get("chosen"), str) else {k: row[k] for k in row if k != "prompt"}
        )
        low, high = (row.get(f"score_{side}") for side in ("rejected", "chosen"))
        if isinstance(low, int | float) and isinstance(high, int | float) and low >= high:
            raise BadRow("has a score_chosen that is not above its score_rejected")
        return prompt, answers, True
    scored = sorted(_scored(row["completions"]), reverse=True)
    if len(scored) < 2 or scored[0][0] == scored[-1][0]:
        raise BadRow("has fewer than two completions with different overall_score")
    return _prompt(row.get("instruction", row.get("prompt"))), (scored[0][1], scored[-1][1]), True


FORMATS: Mapping[str, Callable[[Row], tuple[Any, tuple[str, ...], bool]]] = {
    "trl": _trl,
    "kto": _kto,
    "rewardbench": _rewardbench,
    "hh": _hh,
    "ultrafeedback": _ultrafeedback,
}


def _prompt(given: Any) -> tuple[Message, ...]:
    return _messages([{"role": "user", "content": given}] if isinstance(given, str) else given, "prompt")


def _messages(given: Any, key: str) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise BadRow(f"has no `{key}`")
    found = []
    for each in given:
        role, content = (each.get("role"), each.get("content")) if isinstance(each, dict) else (None, None)
        if role not in _ROLES or not isinstance(content, str) or not content.strip():
            raise BadRow(f"has a `{key}` with a message without role or text")
        found.append(Message(str(role), content))
    return tuple(found)


def _answer(row: Row, key: str) -> str:
    """A string, or a list of messages of which the last is the answer."""
    given = row.get(key)
    text = given if isinstance(given, str) else _messages(given, key)[-1].content
    if not text.strip():
        raise BadRow(f"has an empty `{key}`")
    return text


def _turns(row: Row, key: str) -> tuple[Message, ...]:
    given = row.get(key)
    if not isinstance(given, str):
        raise BadRow(f"has no `{key}`")
    speakers = ["user" if "Human" in mark else "assistant" for mark in _TURN.findall(given)]
    before, *texts = _TURN.split(given)
    if before.strip() or len(speakers) < 2 or speakers[-1] != "assistant" or not all(t.strip() for t in texts):
        raise BadRow(f"has a `{key}` that is no dialogue of Human and Assistant, ending with the Assistant")
    return tuple(Message(role, text.strip()) for role, text in zip(speakers, texts, strict=True))


def _scored(completions: Any) -> list[tuple[float, str]]:
    found = []
    for each in completions if isinstance(completions, list) else ():
        score, text = (each.get("overall_score"), each.get("response")) if isinstance(each, dict) else (None, None)
        if isinstance(score, int | float) and isinstance(text, str) and text.strip():
            found.append((float(score), text))
    return found
