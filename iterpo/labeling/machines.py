"""`MachineAnnotator`: a judge at the annotators' desk. It leases the tasks that are its own and submits labels, so what
holds for people holds for it: one label a task, leases that run out, measured quality.

A failure is tried again up to `max_attempts` times. A final one is a skip with the reason as its rationale: counted as
an abstention, and no vote.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from iterpo.errors import IterpoError
from iterpo.labeling.catalog import JUDGE, machine_name
from iterpo.labeling.deadline import DeadlineRunner, StuckError
from iterpo.labeling.judge import JudgeModel
from iterpo.labeling.labeler import Abstain, failed
from iterpo.labeling.people import PeopleDesk
from iterpo.store.commit import Commit
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask
from iterpo.types import Abstention, AnnotatorState, Lease, Outcome

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""It looks for tasks at least this often, should a wake-up be missed or a lease have run out."""
HANDFUL = 4
"""Tasks held at the same time."""


@dataclass(frozen=True, slots=True)
class _Answer:
    outcome: Outcome | None
    """None: try again."""
    reason: str = ""


class MachineAnnotator:
    """One thread; `start` it, and `close` it before the desk's database."""

    def __init__(
        self,
        people: PeopleDesk,
        judge: JudgeModel,
        seconds: float,
        max_attempts: int,
        on_abstention: Callable[[Abstention], None] = lambda _abstention: None,
    ) -> None:
        self.name = machine_name(JUDGE, judge.name)
        self._people, self._judge = people, judge
        self._runner = DeadlineRunner(2 * seconds)
        self._max_attempts = max_attempts
        self._on_abstention = on_abstention
        self._failures: Counter[str] = Counter()
        self._news = threading.Event()
        self._stopped = threading.Event()
        self._unsubscribe = people.database.subscribe(self._on_commit)
        self._thread = threading.Thread(target=self._work, name=f"iterpo-{self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._unsubscribe()
        self._runner.close()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def _on_commit(self, commit: Commit) -> None:
        if "task" in commit.kinds:
            self._news.set()

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._news.clear()
            try:
                if self._people.database.on_duty() and self._turn():
                    continue
            except IterpoError as error:  # a full or busy disk: the tasks are still there, so look again later
                logger.warning("%s cannot label: %s", self.name, error)
            self._news.wait(LOOK_SECONDS)

    def _turn(self) -> bool:
        """Label what may be leased; False when there was nothing. What is asked of a machine that a lead took out is
        skipped: a run that waits for it must go on."""
        if self._people.crowd.state(self.name) is AnnotatorState.EXCLUDED:
            self._people.give_up(lambda name: name == self.name, "ANNOTATOR_EXCLUDED: a lead took it out").result()
            return False
        seconds = self._people.settings.lease_seconds
        held = self._people.resume(self.name).result()
        if not held:
            held, _ = self._people.lease(Ask(self.name, HANDFUL, seconds, only_own=True)).result()
        for each in held:
            if self._stopped.is_set():
                return False
            self._label(each.lease)
        return bool(held)

    def _label(self, lease: Lease) -> None:
        answer = self._answer(lease)
        if answer.outcome is None:
            return
        if answer.outcome is Outcome.SKIP:
            self._on_abstention(Abstention(lease.task.first.completion_id, self.name, answer.reason))
        label = Submission(lease.lease_id, answer.outcome, rationale=answer.reason)
        (receipt,) = self._people.submit(self.name, [(uuid.uuid4().hex, label)]).result()
        self._failures.pop(lease.task.task_id, None)
        if not receipt.accepted:
            # The same would be refused again: the task goes back, and the model is not asked for nothing.
            self._people.release(self.name, lease.lease_id, receipt.refused_reason).result()

    def _answer(self, lease: Lease) -> _Answer:
        """In the presented order, which for a machine means nothing: both orders are asked."""
        task = lease.task
        first, second = (task.second, task.first) if lease.swapped else (task.first, task.second)
        try:
            return _Answer(self._runner.run(lambda: self._judge.compare(task.prompt, first, second)))
        except Abstain as error:
            return _Answer(Outcome.SKIP, failed(error).reason)
        except TimeoutError as error:
            reason = f"TIMEOUT: {error}"
        except StuckError as error:
            reason = f"LABELER_STUCK: {error}"
        except Exception as error:  # noqa: BLE001 - a judge's connection may raise anything; the reason is stated
            reason = failed(error).reason
        self._failures[task.task_id] += 1
        if self._failures[task.task_id] >= self._max_attempts:
            return _Answer(Outcome.SKIP, reason)
        self._stopped.wait(min(0.5 * 2 ** self._failures[task.task_id], 5.0))
        return _Answer(None)
