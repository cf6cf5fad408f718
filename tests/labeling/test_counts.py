"""What reports count: kept as labels come, equal to counting them all, and made up for in older files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import apsw
import pytest

from iterpo.store.connection import Connection
from iterpo.store.database import open_database
from iterpo.store.labels import comparisons_by_version, count_labels
from iterpo.store.migrate import SCHEMA_VERSION
from iterpo.types import Outcome
from tests.labeling.test_tasks import WAIT, People

VERSION_4 = """
DROP TABLE label_counts;
DROP INDEX labels_compared;
ALTER TABLE labels DROP COLUMN run_id;
DROP INDEX leases_unused;
DROP INDEX leases_used_late;
DROP INDEX tasks_of_run;
ALTER TABLE work DROP COLUMN claimed_by;
ALTER TABLE work DROP COLUMN claimed_until;
PRAGMA user_version = 4;
"""
"""What a file of version 4 lacks."""
COMPARED = (
    "SELECT 1 FROM labels WHERE kind = 'comparison' AND weight > 0 AND outcome IN ('first', 'second', 'tie') "
    "AND run_id = 'r' ORDER BY rowid DESC LIMIT 9"
)


def label(people: People) -> None:
    """Three pairs, one of them labelled anew."""
    for number in range(3):
        people.ask("yes", "no", group_id=f"g{number}")
    for who, outcome in (("ann", Outcome.FIRST), ("bob", Outcome.TIE), ("cem", Outcome.FIRST)):
        (lease,) = people.lease(who, limit=1)
        receipt = people.submit(lease, outcome, who=who)
    held, _ = people.people.undo("cem", receipt.event_id, people.fresh_id()).result(WAIT)
    people.submit(held.lease, Outcome.SECOND, who="cem")


def counted(connection: Connection) -> dict[str, int]:
    """The slow way."""
    return dict(Counter(outcome for (outcome,) in connection.execute("SELECT outcome FROM labels")))


def look(connection: Connection) -> object:
    run = next(str(run) for (run,) in connection.execute("SELECT run_id FROM tasks"))
    return count_labels(connection, run), count_labels(connection, ""), comparisons_by_version(connection, run, 10)


def definitions(connection: apsw.Connection) -> set[str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'labels'")
    return {" ".join(str(sql).split()) for _, sql in rows}


def test_counts_are_those_of_the_labels_also_after_one_was_taken_back(people: People) -> None:
    label(people)
    outcomes, sources = people.database.read(lambda c: count_labels(c, "")).result(WAIT)
    assert outcomes == people.database.read(counted).result(WAIT) == {"first": 1, "tie": 1, "second": 1}
    assert sources == {"people": 3}
    assert people.database.read(lambda c: count_labels(c, "another run")).result(WAIT) == ({}, {})


def test_a_database_of_version_4_is_brought_up_to_date_with_its_labels_counted(tmp_path: Path) -> None:
    people, path = People(tmp_path / "feedback.db", undo_seconds=100.0), tmp_path / "feedback.db"
    label(people)
    before = people.database.read(look).result(WAIT), people.database.read(definitions).result(WAIT)
    people.desk.close()
    people.database.close()
    connection = apsw.Connection(str(path))
    connection.execute(VERSION_4)
    connection.close()

    database = open_database(path)
    assert (database.read(look).result(WAIT), database.read(definitions).result(WAIT)) == before
    assert database.read(lambda c: c.pragma("user_version")).result(WAIT) == SCHEMA_VERSION
    database.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM tasks WHERE kind = 'comparison' AND run_id = 'r'",
        "SELECT count(*) FROM leases WHERE expires_at <= 1 AND released = 0 AND used_at IS NULL",
        "SELECT count(*) FROM leases WHERE expires_at <= 1 AND released = 0 AND used_at > expires_at",
        COMPARED,
    ],
)
def test_what_is_asked_every_other_second_is_answered_from_an_index(tmp_path: Path, query: str) -> None:
    people = People(tmp_path / "feedback.db")
    plan = people.database.read(lambda c: [str(row[3]) for row in c.execute(f"EXPLAIN QUERY PLAN {query}")]).result(
        WAIT
    )
    assert all("USING" in step and "INDEX" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
    people.desk.close()
    people.database.close()
