"""The queue brings every recorded completion to exactly one verdict of its labeler, whatever hangs, fails or dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.labeler import Labeler
from iterpo.labeling.queue import QueueSettings
from iterpo.store import work
from iterpo.store.database import FeedbackDatabase, open_database
from iterpo.store.work import WorkItem
from iterpo.types import Abstention, FeedbackEvent, Reward
from tests.conftest import Place
from tests.labeling.builders import group
from tests.labeling.fakes import HungLabeler, LengthModel, RuleLabeler

WAIT = 20
FAST = QueueSettings(max_attempts=3, timeout_seconds=0.1, workers=2, backoff_seconds=0.01)


@pytest.fixture
def database(place: Place) -> Iterator[FeedbackDatabase]:
    opened = open_database(place("feedback.db"))
    yield opened
    opened.close()


@pytest.fixture
def desk_of(database: FeedbackDatabase) -> Iterator[Callable[..., LabelingDesk]]:
    desks: list[LabelingDesk] = []

    def make(*labelers: Labeler, settings: QueueSettings = FAST) -> LabelingDesk:
        desk = LabelingDesk(database, {labeler.name: labeler for labeler in labelers}, settings)
        desk.start()
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        desk.close()


def verdicts(database: FeedbackDatabase, count: int) -> list[FeedbackEvent]:
    """The first `count` rewards and abstentions, awaited."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        found = [e for e in database.events("", 0, 10_000).result(WAIT) if e.reward or e.abstention]
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise TimeoutError(f"only {len(found)} of {count} verdicts came")


def test_recorded_completions_are_rewarded_in_the_background(database: FeedbackDatabase, desk_of) -> None:
    desk = desk_of(RuleLabeler(lambda text: float(text == "good")))
    desk.record("run", "rule", [group("good", "bad")], "r1").result(WAIT)

    rewards = {e.reward.completion_id: e.reward.value for e in verdicts(database, 2) if e.reward}

    assert rewards == {"g1-0": 1.0, "g1-1": 0.0}
    assert database.read(work.depth).result(WAIT) == 0


def test_more_work_than_fits_in_hand_is_done_to_the_end(database: FeedbackDatabase, desk_of) -> None:
    desk = desk_of(RuleLabeler(lambda text: 0.5))
    groups = [group(*"abcde", group_id=f"g{i}") for i in range(60)]
    desk.record("run", "rule", groups, "r1").result(WAIT)

    rewarded = [e.reward.completion_id for e in verdicts(database, 300) if e.reward]

    assert len(rewarded) == len(set(rewarded)) == 300


def test_a_failing_labeler_is_tried_again_and_then_abstains_once(database: FeedbackDatabase, desk_of) -> None:
    tries: list[str] = []

    def flaky(text: str) -> float:
        tries.append(text)
        if text == "never" or tries.count(text) < 3:
            raise ConnectionError("down")
        return 1.0

    desk = desk_of(RuleLabeler(flaky))
    desk.record("run", "rule", [group("third time", "never")], "r1").result(WAIT)
    found = verdicts(database, 2)

    assert [e.reward.completion_id for e in found if e.reward] == ["g1-0"]
    assert [e.abstention for e in found if e.abstention] == [
        Abstention("g1-1", "rule", "EXCEPTION: ConnectionError: down")
    ]
    assert (tries.count("third time"), tries.count("never")) == (3, 3)


def test_a_hung_labeler_delays_nobody_else_and_ends_as_a_timeout(database: FeedbackDatabase, desk_of) -> None:
    hung = HungLabeler()
    desk = desk_of(hung, RuleLabeler(lambda text: 1.0), settings=QueueSettings(1, 0.8, 1, 0.01))
    desk.record("run", "hung", [group("hang", "hang", "hang", group_id="g1")], "r1").result(WAIT)
    started = time.monotonic()
    desk.record("run", "rule", [group("a", "b", group_id="g2")], "r2").result(WAIT)

    first_two = verdicts(database, 2)
    assert time.monotonic() - started < 0.8, "the quick labeler waited for the hung one"
    assert {e.reward.labeler for e in first_two if e.reward} == {"rule"}
    reasons = [e.abstention.reason for e in verdicts(database, 5) if e.abstention]
    hung.release.set()
    assert reasons == ["TIMEOUT: no answer within 0.8 s"] * 3


def test_a_batch_labeler_gets_batches(database: FeedbackDatabase, desk_of) -> None:
    model = LengthModel()
    desk = desk_of(model)
    desk.record("run", "length", [group("a", "bb", "ccc", "dddd", "eeeee", "ffffff")], "r1").result(WAIT)

    values = sorted(e.reward.value for e in verdicts(database, 6) if e.reward)

    assert values == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert max(model.batches) == 4


def test_work_left_by_a_dead_process_is_taken_up(database: FeedbackDatabase, desk_of) -> None:
    dead = LabelingDesk(database, {"rule": RuleLabeler(lambda text: 0.0)})
    dead.record("run", "rule", [group("a", "b")], "r1").result(WAIT)  # never started: nothing is labelled
    dead.close()
    assert database.read(work.depth).result(WAIT) == 2

    desk_of(RuleLabeler(lambda text: 1.0))

    assert [e.reward.value for e in verdicts(database, 2) if e.reward] == [1.0, 1.0]


def test_a_labeler_that_left_the_configuration_abstains(database: FeedbackDatabase, desk_of) -> None:
    old = LabelingDesk(database, {"old": RuleLabeler(lambda text: 0.0, "old")})
    old.record("run", "old", [group("a")], "r1").result(WAIT)
    old.close()

    desk_of(RuleLabeler(lambda text: 1.0))

    (event,) = verdicts(database, 1)
    assert event.abstention is not None
    assert event.abstention.reason.startswith("UNKNOWN_LABELER")


def test_a_completion_never_gets_two_rewards_of_one_labeler(database: FeedbackDatabase) -> None:
    desk = LabelingDesk(database, {"rule": RuleLabeler(lambda text: 0.0)})
    desk.record("run", "rule", [group("a")], "r1").result(WAIT)
    (item,) = database.write(lambda tx: work.claim_work(tx, "rule", 10, (), database.owner)).result(WAIT)
    assert isinstance(item, WorkItem)

    stored = [
        database.write(lambda tx, v=value: work.finish(tx, item, Reward("g1-0", v, "rule"))).result(WAIT)
        for value in (0.25, 0.75)
    ]

    assert stored == [True, False]
    assert [e.reward.value for e in verdicts(database, 1) if e.reward] == [0.25]
    desk.close()
