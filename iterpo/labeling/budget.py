"""`Budget`: people's time goes where it teaches. A reward model, trained from people's own labels, answers the pairs
that it is sure of; people get those that it is not sure of, and those on which the policy contradicts it.

    new task --held--> reward model --sure, uncontradicted--> its label, and the preference
                                    --sure, drawn for audit--> people, beside the model's own opinion
                                    --unsure, or contradicted--> people, with the uncertainty for the task selection

The model is one more annotator, `reward_model/NAME`: its labels are events, its reliability is worked out like
anybody's, its agreement with people is tracked on the audited pairs. Until there is a model whose held-out accuracy
reaches `min_accuracy`, people answer everything.
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iterpo.config import BudgetSettings
from iterpo.errors import IterpoError
from iterpo.labeling.calibration import HIGHEST, log_odds, logistic
from iterpo.labeling.catalog import machine_name
from iterpo.labeling.pairs import unsureness
from iterpo.labeling.people import PeopleDesk
from iterpo.labeling.reward_directory import METRICS_FILE
from iterpo.labeling.reward_model import RewardModel
from iterpo.store.commit import Commit
from iterpo.store.labels import Accepted, label_directly
from iterpo.store.tasks import add_task, held_tasks, let_go
from iterpo.store.transaction import Transaction
from iterpo.types import Outcome, Task, TaskKind

logger = logging.getLogger(__name__)

HANDFUL = 64
"""Tasks that the model looks at together; an answer that stands in several is read once."""
LOOK_SECONDS = 1.0
CONTRADICTION = 0.1
"""The policy contradicts the model when its own p_first_wins, calibrated on what people said of late, lies this far on
the other side of a half."""


@dataclass(frozen=True, slots=True)
class Opinion:
    task: Task
    p_first_wins: float
    """The reward model's, calibrated."""
    p_policy: float | None = None
    """The policy's, calibrated; None when it has no opinion."""

    def decides(self, confidence: float) -> bool:
        """Sure, and not contradicted by the policy."""
        sure = max(self.p_first_wins, 1 - self.p_first_wins) >= confidence
        return sure and not self.contradicted

    @property
    def contradicted(self) -> bool:
        if self.p_policy is None:
            return False
        side = 1 if self.p_first_wins >= 0.5 else -1
        return side * (self.p_policy - 0.5) <= -CONTRADICTION


@dataclass(frozen=True, slots=True)
class InUse:
    """What answers, swapped as one: another model's margins have another scale."""

    model: RewardModel
    temperature: float = 1.0
    policy_temperature: float = 1.0


class Budget:
    """One thread; `start` it, and `close` it before the desk's database."""

    def __init__(self, people: PeopleDesk, settings: BudgetSettings, draw: random.Random | None = None) -> None:
        if settings.reward_model is None:
            raise ValueError("a budget without a directory for its reward models is none")
        self.directory: Path = settings.reward_model
        self.name = machine_name("reward_model", self.directory.name)
        self._people, self._settings = people, settings
        self._draw = draw or random.Random()
        self._in_use: InUse | None = None
        self._news = threading.Event()
        self._closing = False
        people.holds = self._holds
        self._unsubscribe = people.database.subscribe(self._on_commit)
        self._thread = threading.Thread(target=self._work, name=f"iterpo-{self.name}", daemon=True)

    @property
    def in_use(self) -> Path | None:
        """Folder of the reward model that answers."""
        return None if self._in_use is None else self._in_use.model.path

    def start(self) -> None:
        """With the newest model that is good enough, if there is one."""
        self.adopt_newest()
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._unsubscribe()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def adopt_newest(self) -> bool:
        """Use the newest trained model; False when there is none that is good enough."""
        for path in sorted(self.directory.glob("[0-9]*"), reverse=True):
            try:
                metrics = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))["metrics"]
                if metrics.get("heldout_accuracy", 0.0) < self._settings.min_accuracy:
                    logger.info("reward model %s is right too seldom to answer: %s", path.name, metrics)
                    continue
                model = RewardModel(self.directory.name, path)
                model.load()
            except (OSError, ValueError, KeyError, IterpoError) as error:
                logger.warning("reward model %s cannot be used: %s", path, error)
                continue
            temperatures = [float(metrics.get(name, 1.0)) for name in ("temperature", "policy_temperature")]
            self._in_use = InUse(model, *temperatures)
            return True
        return False

    def _holds(self, task: Task) -> bool:
        """A model that was found unreliable, or taken out by a lead, is not asked any more."""
        trusted = self._in_use is not None and self._people.crowd.weight(self.name) > 0
        return trusted and task.kind is TaskKind.COMPARISON and not task.only_for

    def _on_commit(self, commit: Commit) -> None:
        if "task" in commit.kinds:
            self._news.set()

    def _work(self) -> None:
        while not self._closing:
            self._news.clear()
            try:
                database = self._people.database
                tasks = database.read(lambda c: held_tasks(c, HANDFUL)).result() if database.on_duty() else []
                if tasks:
                    self._settle(tasks)
                    continue
            except IterpoError as error:  # a full or busy disk: the tasks are held until there is room
                logger.warning("the label budget cannot be kept: %s", error)
            except Exception:  # a bug here must not leave tasks held for ever without a word
                logger.exception("the label budget failed; it goes on")
            self._news.wait(LOOK_SECONDS)

    def _settle(self, tasks: Sequence[Task]) -> None:
        opinions = self._opinions(tasks)
        done = self._people.database.write(lambda tx: [a for o in opinions for a in self._decide(tx, o)])
        self._people.noted(done, lambda accepted: accepted).result()

    def _opinions(self, tasks: Sequence[Task]) -> list[Opinion]:
        """Without a model, or when it fails, people are asked: an oracle's failure is no answer."""
        try:
            in_use = self._in_use
            assert in_use is not None
            answers = {c.completion_id: (task.prompt, c) for task in tasks for c in (task.first, task.second)}
            rewards = dict(zip(answers, in_use.model.score_batch(list(answers.values())), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever the model raises, the pairs must not be stuck with it
            logger.warning("the reward model failed, people are asked instead: %s: %s", type(error).__name__, error)
            return [Opinion(task, 0.5) for task in tasks]
        margins = [(rewards[t.first.completion_id] - rewards[t.second.completion_id]) for t in tasks]
        return [
            # What is not finite (an overflow) is no opinion.
            Opinion(task, logistic(m / in_use.temperature) if math.isfinite(m) else 0.5, _of_policy(task, in_use))
            for task, m in zip(tasks, margins, strict=True)
        ]

    def _decide(self, transaction: Transaction, opinion: Opinion) -> list[Accepted]:
        trusted = self._people.crowd.weight(self.name) > 0
        if not trusted or not opinion.decides(self._settings.confidence):
            let_go(transaction, opinion.task.task_id, unsureness(opinion.p_first_wins), self._people.urgency)
            return []
        if self._draw.random() >= self._settings.audit_share:
            return [self._label(transaction, opinion, opinion.task.task_id)]
        let_go(transaction, opinion.task.task_id, unsureness(opinion.p_first_wins), self._people.urgency)
        audit = replace(opinion.task, task_id=uuid.uuid4().hex, kind=TaskKind.AUDIT, only_for=self.name)
        add_task(transaction, audit)
        return [self._label(transaction, opinion, audit.task_id)]

    def _label(self, transaction: Transaction, opinion: Opinion, task_id: str) -> Accepted:
        outcome = Outcome.FIRST if opinion.p_first_wins > 0.5 else Outcome.SECOND
        rationale = f"p_first_wins {opinion.p_first_wins:.3f}"
        weight = self._people.crowd.vote_weight(self.name)
        accepted = label_directly(transaction, task_id, self.name, outcome, rationale, weight)
        self._people.conclude(transaction, accepted)
        return accepted


def _of_policy(task: Task, in_use: InUse) -> float | None:
    """The policy's opinion, calibrated; None where it was not asked, or agrees with people no more than by chance."""
    if task.p_policy is None or in_use.policy_temperature >= HIGHEST:
        return None
    return logistic(log_odds(task.p_policy) / in_use.policy_temperature)
