"""`LabelQueue`: takes recorded completions to their labelers until each has a verdict, across restarts.

    work table --(due, not in hand)--> dispatcher --chunks--> lane of the labeler --judgement--> work table

The queue itself is the store's `work` table: what a killed process had in hand is simply due again. Every labeler has
its own lane of `workers` threads, so a slow or hung one delays nobody else. A timeout or an exception is tried again
after a growing pause, `max_attempts` times in all, and then ends as an Abstention event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from iterpo.errors import IterpoError
from iterpo.labeling.deadline import DeadlineRunner, StuckError
from iterpo.labeling.labeler import BatchLabeler, Item, Judgement, Labeler, judge
from iterpo.store import work
from iterpo.store.database import FeedbackDatabase
from iterpo.store.transaction import Clock
from iterpo.store.work import Verdict, WorkItem

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""The dispatcher looks at least this often, should a wake-up ever be missed."""
HANDFUL = 64
"""Items of one labeler that are in memory at the same time; the rest waits in the table."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    max_attempts: int = 3
    timeout_seconds: float = 30.0
    """Deadline of one attempt at one completion."""
    workers: int = 2
    """Threads a labeler."""
    backoff_seconds: float = 0.5
    """Pause before the second attempt; doubles with every further one."""


class Judge:
    """Runs a labeler under its deadline: what the queue and ScoreCompletions share."""

    def __init__(self, labeler: Labeler, seconds: float) -> None:
        self.labeler = labeler
        self.batch_size = labeler.batch_size if isinstance(labeler, BatchLabeler) else 1
        self._runner = DeadlineRunner(seconds)

    def judgements(self, items: Sequence[Item]) -> list[Judgement]:
        """One an item, in order; a batch has as many deadlines as items. Raises nothing."""
        judged: list[Judgement] = []
        for start in range(0, len(items), self.batch_size):
            judged += self._chunk(items[start : start + self.batch_size])
        return judged

    def close(self) -> None:
        """Let everybody who waits for this labeler go; their judgements are timeouts."""
        self._runner.close()

    def _chunk(self, items: Sequence[Item]) -> list[Judgement]:
        try:
            return self._runner.run(lambda: judge(self.labeler, items), allowance=len(items))
        except TimeoutError as error:
            failure = Judgement(None, f"TIMEOUT: {error}", worth_retrying=True)
        except StuckError as error:
            failure = Judgement(None, f"LABELER_STUCK: {error}", worth_retrying=True)
        return [failure] * len(items)


class LabelQueue:
    """Start it once; it ends with `close`. `notify` is called by whoever recorded work."""

    def __init__(
        self,
        database: FeedbackDatabase,
        judges: Mapping[str, Judge],
        settings: QueueSettings | None = None,
        clock: Clock = time.time,
        on_verdict: Callable[[Verdict], None] = lambda _verdict: None,
    ) -> None:
        self._database = database
        self._judges = judges
        self._settings = settings or QueueSettings()
        self._clock = clock
        self._on_verdict = on_verdict
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._in_hand: set[tuple[str, str]] = set()
        self._news = threading.Condition()
        self._told = False
        self._closing = False
        self._renew_at = 0.0
        self._dispatcher = threading.Thread(target=self._dispatch_forever, name="iterpo-label-queue", daemon=True)

    def start(self) -> None:
        """Also takes up what an earlier process left."""
        self._dispatcher.start()

    def notify(self) -> None:
        with self._news:
            self._told = True
            self._news.notify_all()

    def stop_handing_out(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify_all()

    def close(self) -> None:
        """Stop. What is in hand is thrown away and will be due again after a restart; close the judges first."""
        self.stop_handing_out()
        if self._dispatcher.is_alive():
            self._dispatcher.join()
        for lane in self._lanes.values():
            lane.shutdown(wait=True, cancel_futures=True)

    def _dispatch_forever(self) -> None:
        while not self._closing:
            try:
                pause = self._dispatch()
            except IterpoError as error:  # a full or busy disk: the work is still in the table, so look again later
                logger.warning("the label queue cannot read its work: %s", error)
                pause = IDLE_SECONDS
            with self._news:
                self._news.wait_for(lambda: self._told or self._closing, timeout=pause)
                self._told = False

    def _dispatch(self) -> float:
        """Hand out what is due; seconds until something may be due again."""
        now = self._clock()
        self._renew(now)
        for name in self._database.read(lambda connection: work.labelers_with_work(connection, now)).result():
            self._dispatch_to(name)
        next_due = self._database.read(work.next_due).result()
        wait = IDLE_SECONDS if next_due is None or next_due <= now else next_due - now
        return min(wait, IDLE_SECONDS)

    def _renew(self, now: float) -> None:
        """The claims on what is in hand, so that no other server takes it up."""
        with self._news:
            held = set(self._in_hand)
        if held and now >= self._renew_at:
            self._database.write(lambda tx: work.renew_claims(tx, self._database.owner, held)).result()
            self._renew_at = now + work.CLAIM_SECONDS / 3

    def _dispatch_to(self, name: str) -> None:
        with self._news:
            busy = {key for key in self._in_hand if key[1] == name}
        room = HANDFUL - len(busy)
        if room < HANDFUL // 2:
            return  # enough in hand: every verdict wakes the dispatcher, and not each is worth a look at the table
        owner = self._database.owner
        due = self._database.write(lambda tx: work.claim_work(tx, name, room, busy, owner)).result()
        with self._news:
            self._in_hand.update(item.key for item in due)
        size = self._judges[name].batch_size if name in self._judges else 1
        for start in range(0, len(due), size):
            self._lane(name).submit(self._label, name, due[start : start + size])

    def _lane(self, name: str) -> ThreadPoolExecutor:
        if name not in self._lanes:
            self._lanes[name] = ThreadPoolExecutor(self._settings.workers, thread_name_prefix=f"iterpo-lane-{name}")
        return self._lanes[name]

    def _label(self, name: str, items: list[WorkItem]) -> None:
        judge = self._judges.get(name)
        if judge is None:
            gone = Judgement(None, "UNKNOWN_LABELER: the server's configuration no longer has this labeler")
            judgements = [gone] * len(items)
        else:
            judgements = judge.judgements([(item.prompt, item.completion) for item in items])
        if not self._closing:
            for item, judgement in zip(items, judgements, strict=True):
                self._settle(item, judgement)

    def _settle(self, item: WorkItem, judgement: Judgement) -> None:
        if judgement.worth_retrying and item.attempts + 1 < self._settings.max_attempts:
            due = self._clock() + self._settings.backoff_seconds * 2**item.attempts
            self._release(item, self._database.write(lambda tx: work.postpone(tx, item, due)))
            return
        verdict = judgement.verdict(item.completion.completion_id, item.labeler)
        written = self._database.write(lambda tx: work.finish(tx, item, verdict))
        written.add_done_callback(lambda future: self._observe(future, verdict))
        self._release(item, written)

    def _release(self, item: WorkItem, written: Future[bool] | Future[None]) -> None:
        """Let go of the item once the store has the outcome; when it could not take it, the item is due again."""

        def let_go(future: Future[bool] | Future[None]) -> None:
            if future.exception() is not None:
                logger.warning("a verdict could not be stored and will be asked for again: %s", future.exception())
            with self._news:
                self._in_hand.discard(item.key)
                self._told = True
                self._news.notify_all()

        written.add_done_callback(let_go)

    def _observe(self, written: Future[bool], verdict: Verdict) -> None:
        if written.exception() is None and written.result():
            self._on_verdict(verdict)
