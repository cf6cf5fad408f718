"""The store's promises: durable before the answer, once and only once, append-only, readable when the disk is full."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from pathlib import Path

import apsw
import pytest

from iterpo.errors import Conflict, ResourceExhausted, Unavailable, WrongState
from iterpo.store.commit import Commit
from iterpo.store.database import FeedbackDatabase, open_database
from iterpo.store.migrate import OLDEST_VERSION, SCHEMA_VERSION
from iterpo.store.transaction import Answer, Transaction
from iterpo.types import Reward
from tests.labeling.builders import group

WAIT = 20


@pytest.fixture
def database(tmp_path: Path):
    opened = open_database(tmp_path / "feedback.db", clock=lambda: 1000.0)
    yield opened
    opened.close()


def append(value: float, run_id: str = "run"):
    return lambda tx: tx.append(run_id, Reward(f"c{value}", value, "rule"))


def test_events_come_back_in_order_with_their_cursors(database: FeedbackDatabase) -> None:
    for value in (1.0, 2.0, 3.0):
        database.write(append(value)).result(WAIT)
    database.write(append(9.0, "other")).result(WAIT)

    mine = database.events("run", after=1).result(WAIT)
    everybody = database.events("", after=0).result(WAIT)

    assert [(e.cursor, e.reward.value) for e in mine if e.reward] == [(2, 2.0), (3, 3.0)]
    assert [e.run_id for e in everybody] == ["run", "run", "run", "other"]
    assert {e.created_at for e in everybody} == {1000.0}


def test_a_group_survives_the_disk_token_for_token(database: FeedbackDatabase, tmp_path: Path) -> None:
    recorded = group("one", "two")
    database.write(lambda tx: tx.append("run", recorded)).result(WAIT)
    database.close()

    reopened = open_database(tmp_path / "feedback.db")
    (event,) = reopened.events("run", 0).result(WAIT)
    reopened.close()

    assert event.group == recorded


def test_a_request_is_carried_out_once_however_often_it_is_sent(database: FeedbackDatabase) -> None:
    def request(payload: bytes) -> Answer:
        return database.write(lambda tx: tx.once("r1", payload, lambda: [append(1.0)(tx)])).result(WAIT)

    first, again = request(b"same"), request(b"same")

    assert again.ids == first.ids
    assert (first.duplicate, again.duplicate) == (False, True)
    assert len(database.events("", 0).result(WAIT)) == 1
    with pytest.raises(Conflict) as refused:
        request(b"other")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(database.events("", 0).result(WAIT)) == 1


def test_a_failing_operation_takes_nothing_of_its_neighbours_along(database: FeedbackDatabase) -> None:
    release = threading.Event()
    database.write(lambda tx: release.wait(WAIT))

    def fails(tx: Transaction) -> None:
        tx.append("run", Reward("half", 0.5, "rule"))
        raise KeyError("changed my mind")

    before, failing, after = database.write(append(1.0)), database.write(fails), database.write(append(2.0))
    release.set()

    assert before.result(WAIT)
    assert after.result(WAIT)
    with pytest.raises(KeyError):
        failing.result(WAIT)
    assert [e.reward.value for e in database.events("", 0).result(WAIT) if e.reward] == [1.0, 2.0]


def test_waiting_operations_share_a_commit(database: FeedbackDatabase) -> None:
    commits: list[Commit] = []
    release = threading.Event()
    database.subscribe(commits.append)
    database.write(lambda tx: release.wait(WAIT))
    futures = [database.write(append(float(i))) for i in range(100)]
    release.set()
    wait(futures, WAIT)

    assert sum(commit.operations for commit in commits) == 101
    assert max(commit.operations for commit in commits) <= 64
    assert len(commits) < 51, "a hundred waiting operations were committed nearly one by one"


def test_a_cancelled_caller_does_not_stop_the_writer(database: FeedbackDatabase) -> None:
    release = threading.Event()
    database.write(lambda tx: release.wait(WAIT))
    cancelled = [database.write(append(float(i))) for i in range(3)]
    assert all(future.cancel() for future in cancelled)
    release.set()

    assert database.write(append(7.0)).result(WAIT)
    assert [e.reward.value for e in database.events("", 0).result(WAIT) if e.reward] == [7.0]


def test_events_can_neither_be_changed_nor_deleted(database: FeedbackDatabase) -> None:
    database.write(append(1.0)).result(WAIT)
    for statement in ("UPDATE events SET body = x'00'", "DELETE FROM events"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            database.write(lambda tx, sql=statement: tx.connection.execute(sql)).result(WAIT)


def test_a_full_disk_is_said_and_loses_nothing_stored(database: FeedbackDatabase) -> None:
    database.write(append(1.0)).result(WAIT)
    pages = database.read(lambda c: c.pragma("page_count")).result(WAIT)
    database.write(lambda tx: tx.connection.pragma("max_page_count", pages + 2)).result(WAIT)

    stored = 1
    with pytest.raises(ResourceExhausted) as full:
        for index in range(2, 1000):
            database.write(lambda tx, i=index: tx.append("run", group("x" * 500, group_id=f"g{i}"))).result(WAIT)
            stored += 1

    assert full.value.reason == "DISK_FULL"
    assert len(database.events("", 0, limit=10_000).result(WAIT)) == stored
    database.write(lambda tx: tx.connection.pragma("max_page_count", pages + 1000)).result(WAIT)
    assert database.write(append(2.0)).result(WAIT), "the store must go on once there is space again"


@pytest.mark.parametrize(
    ("version", "reason", "fix"),
    [
        (SCHEMA_VERSION + 1, "STORE_TOO_NEW", "Install the newer iterpo"),
        (OLDEST_VERSION - 1, "STORE_TOO_OLD", "Set labeling.store to another path"),
    ],
)
def test_a_database_of_another_version_is_left_alone(tmp_path: Path, version: int, reason: str, fix: str) -> None:
    path = tmp_path / "feedback.db"
    open_database(path).close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", version)
    connection.close()

    with pytest.raises(WrongState, match=fix) as refused:
        open_database(path)
    assert refused.value.reason == reason


@pytest.mark.parametrize("content", [b"this is no database, it is a text of some length" * 40])
def test_a_file_that_is_no_database_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "feedback.db"
    path.write_bytes(content)
    with pytest.raises(WrongState) as refused:
        open_database(path)
    assert refused.value.reason == "STORE_CORRUPT"
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(WrongState, match="another program"):
        open_database(path)


def test_a_second_opener_is_told_that_the_store_is_in_use(database: FeedbackDatabase) -> None:
    with pytest.raises(WrongState) as refused:
        open_database(database.path)
    assert refused.value.reason == "STORE_IN_USE"


def test_a_closed_store_refuses_and_what_was_submitted_is_kept(tmp_path: Path) -> None:
    database = open_database(tmp_path / "feedback.db")
    futures = [database.write(append(float(i))) for i in range(50)]
    database.close()

    assert all(future.result(0) for future in futures)
    with pytest.raises(Unavailable):
        database.write(append(1.0))
