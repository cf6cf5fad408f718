"""Labelers that answer, fail or hang on purpose, and a clock that moves when told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from iterpo.labeling.labeler import Item
from iterpo.types import Completion, Prompt


class RuleLabeler:
    kind = "verifier"
    description = "a rule of a test"

    def __init__(self, rule: Callable[[str], float], name: str = "rule") -> None:
        self.name = name
        self.rule = rule
        self.seen: list[str] = []

    def score(self, prompt: Prompt, completion: Completion) -> float:
        self.seen.append(completion.text)
        return self.rule(completion.text)


class HungLabeler(RuleLabeler):
    """Hangs on texts with `hang` until released; answers 1 otherwise."""

    def __init__(self, name: str = "hung") -> None:
        super().__init__(self._answer, name)
        self.release = threading.Event()

    def _answer(self, text: str) -> float:
        if "hang" in text:
            self.release.wait(60)
        return 1.0


class LengthModel:
    """A batch labeler: the reward is the number of characters."""

    kind, description, name, batch_size = "reward_model", "counts characters", "length", 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, prompt: Prompt, completion: Completion) -> float:
        return self.score_batch([(prompt, completion)])[0]

    def score_batch(self, items: Sequence[Item]) -> list[float]:
        self.batches.append(len(items))
        return [float(len(completion.text)) for _, completion in items]


class MovableClock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
