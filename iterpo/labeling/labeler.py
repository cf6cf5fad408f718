"""What every labeler is, and how its answer becomes a judgement: a failure abstains, it never scores 0.

Abstention reasons start with one upper-case word, a colon and the story: `TIMEOUT: no answer within 30 s`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from iterpo.types import Abstention, Completion, Prompt, Reward

Item = tuple[Prompt, Completion]

ABSTENTION_CLASSES = (
    "TIMEOUT",
    "EXCEPTION",
    "NOT_FINITE",
    "OUT_OF_RANGE",
    "NO_REFERENCE_ANSWER",
    "LABELER_STUCK",
    "UNKNOWN_LABELER",
    "UNPARSEABLE",
    "ABSTAINED",
)
"""The first words that reasons start with; a labeler's own words are filed under ABSTAINED."""
MAX_REASON = 300
"""Characters kept of a reason: an exception's text may quote a whole answer."""


class Abstain(Exception):
    """Raised by a labeler that cannot tell. Final: the same question would get the same non-answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Labeler(Protocol):
    """Scores one completion. Any exception, or a number that is not finite, is an abstention."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """`verifier` (rewards in [0, 1], anything else abstains), `reward_model` (unbounded), or `judge` (compares two
        answers and scores none)."""
        ...

    @property
    def description(self) -> str: ...

    def score(self, prompt: Prompt, completion: Completion) -> float: ...


@runtime_checkable
class BatchLabeler(Protocol):
    """A labeler that is faster on many completions at once; `score` must exist too."""

    @property
    def batch_size(self) -> int: ...

    def score_batch(self, items: Sequence[Item]) -> list[float]:
        """One number an item, in order. An exception fails the whole batch."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """A labeler's answer to one item: a value, or the reason why there is none."""

    value: float | None
    reason: str = ""
    worth_retrying: bool = False
    """True for what may pass: a timeout, an exception. A verdict of "cannot tell" stays one."""

    def verdict(self, completion_id: str, labeler: str) -> Reward | Abstention:
        if self.value is None:
            return Abstention(completion_id, labeler, self.reason)
        return Reward(completion_id, self.value, labeler)


def judge(labeler: Labeler, items: Sequence[Item]) -> list[Judgement]:
    """One judgement an item, in order. Raises nothing."""
    if isinstance(labeler, BatchLabeler):
        return _judge_batch(labeler, labeler.kind, items)
    return [_judge_one(labeler, prompt, completion) for prompt, completion in items]


def failed(error: BaseException) -> Judgement:
    """The judgement that an exception stands for."""
    if isinstance(error, Abstain):
        known = abstention_class(error.reason) != "ABSTAINED" or error.reason.startswith("ABSTAINED:")
        return Judgement(None, (error.reason if known else f"ABSTAINED: {error.reason}")[:MAX_REASON])
    return Judgement(None, f"EXCEPTION: {type(error).__name__}: {error}"[:MAX_REASON], worth_retrying=True)


def abstention_class(reason: str) -> str:
    """The first word of a reason when it is one of ABSTENTION_CLASSES, else ABSTAINED: a bounded set, for metrics."""
    word = reason.partition(":")[0]
    return word if word in ABSTENTION_CLASSES else "ABSTAINED"


def _judge_one(labeler: Labeler, prompt: Prompt, completion: Completion) -> Judgement:
    try:
        return _checked(labeler.score(prompt, completion), labeler.kind)
    except Exception as error:  # noqa: BLE001 - a labeler may be anybody's code: whatever it raises is an abstention, stated
        return failed(error)


def _judge_batch(labeler: BatchLabeler, kind: str, items: Sequence[Item]) -> list[Judgement]:
    try:
        values = labeler.score_batch(items)
        if len(values) != len(items):
            raise ValueError(f"the labeler answered {len(values)} of {len(items)} items")
    except Exception as error:  # noqa: BLE001 - as in _judge_one, for the batch as a whole
        return [failed(error)] * len(items)
    return [_checked(value, kind) for value in values]


def _checked(value: object, kind: str) -> Judgement:
    if isinstance(value, bool | int | float):
        number = float(value)
        if not math.isfinite(number):
            return Judgement(None, f"NOT_FINITE: the labeler answered {number}")
        if kind == "verifier" and not 0.0 <= number <= 1.0:
            return Judgement(None, f"OUT_OF_RANGE: the verifier answered {number}, rewards lie in [0, 1]")
        return Judgement(number)
    return Judgement(None, f"EXCEPTION: the labeler answered a {type(value).__name__}, not a number")
