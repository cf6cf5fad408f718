"""A store looked after from outside: copied between engines, checked, backed up, brought up to date."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import apsw
import psycopg
import pytest
from click.testing import CliRunner

from iterpo.cli.store import command
from iterpo.errors import InvalidConfig, NotFound, WrongState
from iterpo.labeling.desk import PairRequest
from iterpo.store.check import LAWS, check
from iterpo.store.copying import copy, digests
from iterpo.store.database import open_database
from iterpo.store.migrate import SCHEMA_VERSION
from iterpo.store.whole import backup, filling, reading
from iterpo.types import Outcome, Reward
from tests.conftest import Place
from tests.labeling.test_tasks import WAIT, People
from tests.store.postgresql_server import PostgresqlServer, find


def used(where: Path | str) -> str:
    """A store with a bit of everything: labels, one taken back, a lease given back, gold, verdicts, work to do."""
    people = People(where, undo_seconds=100.0)
    for number in range(4):
        people.ask("yes ☂", "no", group_id=f"g{number}")
    people.ask("a", "b", group_id="two", required=2)
    people.desk.create_tasks("run", [PairRequest("g0-0", "g0-1", gold=Outcome.FIRST)], "gold").result(WAIT)
    first, second, third = people.lease("ann", limit=3)
    people.submit(first, Outcome.TIE)
    receipt = people.submit(second)
    people.people.undo("ann", receipt.event_id, people.fresh_id()).result(WAIT)
    people.people.release("ann", third.lease_id, "unclear").result(WAIT)
    people.database.write(lambda tx: tx.append("other", Reward("elsewhere", 0.1 + 0.2, "rule"))).result(WAIT)
    people.desk.close()
    people.database.close()
    return str(where)


@pytest.fixture
def places(tmp_path: Path, postgresql_server: PostgresqlServer):
    """Kind -> an address for a new store."""
    return {
        "sqlite": lambda: str(tmp_path / "copy.db"),
        "postgresql": lambda: postgresql_server.new_database(empty=True),
    }


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_copy_has_the_same_rows_and_goes_on_where_its_source_stood(place: Place, places, target: str) -> None:
    source, there = used(place("feedback.db")), places[target]()
    with reading(source, alone=True) as whole, filling(there) as empty:
        copied = copy(whole, empty, lambda _table, _rows: None)
    with reading(there) as whole:
        assert digests(whole) == copied
        assert not [finding for finding in check(whole, 0.0) if finding.broken]
    rows = {each.table: each.rows for each in copied}
    assert (rows["labels"], rows["groups"], rows["leases"]) == (1, 5, 4)
    before, after = open_database(source), open_database(there)
    try:
        assert after.events("", 0).result(WAIT) == before.events("", 0).result(WAIT)
        for database in (before, after):
            database.write(lambda tx: tx.append("other", Reward("next", 1.0, "rule"))).result(WAIT)
        newest = [database.read_settled(lambda _, upto: upto).result(WAIT) for database in (before, after)]
        assert newest[0] == newest[1], "the next event has the next cursor in both"
    finally:
        before.close()
        after.close()


def test_a_store_with_something_in_it_is_not_copied_into(place: Place, places) -> None:
    source, there = used(place("feedback.db")), used(places["sqlite"]())
    with pytest.raises(WrongState) as refused, reading(source) as whole, filling(there) as full:
        copy(whole, full, lambda _table, _rows: None)
    assert refused.value.reason == "STORE_NOT_EMPTY"


def test_a_copy_that_fails_leaves_nothing(place: Place, places) -> None:
    source, there = used(place("feedback.db")), places["postgresql"]()

    def full(table: str, _rows: int) -> None:
        if table == "tasks":
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"), reading(source) as whole, filling(there) as empty:
        copy(whole, empty, full)
    with reading(there) as whole:
        assert {each.rows for each in digests(whole)} == {0}


def test_a_file_in_use_is_not_copied(tmp_path: Path) -> None:
    source = used(tmp_path / "feedback.db")
    database = open_database(source)
    with pytest.raises(WrongState) as refused, reading(source, alone=True):
        pytest.fail("read beside its server")
    database.close()
    assert refused.value.reason == "STORE_IN_USE"


BREAKS = {
    "a task counts its labels right": "UPDATE tasks SET accepted_labels = 0 WHERE group_id = 'g0' AND kind <> 'gold'",
    "labels and live leases together are no more than a task requires": (
        "UPDATE leases SET used_at = NULL, expires_at = 9e9 WHERE task_id IN (SELECT task_id FROM labels)"
    ),
    "every label is an event": "UPDATE labels SET event_id = 'nowhere'",
    "every labelling event is a label, or was taken back": "DELETE FROM labels",
    "every task is an event": "UPDATE tasks SET event_cursor = 1 WHERE kind = 'gold'",
    "every group is an event": "UPDATE groups SET event_cursor = 2 WHERE group_id = 'g0'",
    "every verdict is an event": "INSERT INTO verdicts VALUES ('c', 'rule', 'nowhere')",
    "what has a verdict waits for none": "INSERT INTO verdicts SELECT completion_id, labeler, 'x' FROM work",
    "labels are counted right": "UPDATE label_counts SET number = number + 1",
    "every request has its answer": "UPDATE requests SET answer = ''",
}
"""By the tables' own constraints the other laws cannot be broken."""
HELD_BY_THE_TABLES = {"a task has no more labels than it requires", "nobody labelled a task twice"}


def test_every_law_can_be_broken_or_is_held_by_the_tables_themselves() -> None:
    assert BREAKS.keys() | HELD_BY_THE_TABLES == LAWS.keys()


@pytest.mark.parametrize("law", BREAKS)
def test_a_store_that_breaks_a_law_is_told(place: Place, law: str) -> None:
    where = used(place("feedback.db"))
    if isinstance(place("feedback.db"), Path):
        with apsw.Connection(where) as connection:
            connection.execute(BREAKS[law])
    else:
        with psycopg.connect(where) as operator:
            operator.execute(BREAKS[law])
    with reading(where) as whole:
        broken = {finding.law for finding in check(whole, 2000.0) if finding.broken}
    assert law in broken


def test_the_command_says_what_is_broken_with_exit_code_one(tmp_path: Path) -> None:
    where = used(tmp_path / "feedback.db")
    assert CliRunner().invoke(command, ["check", "--store", where]).exit_code == 0
    with apsw.Connection(where) as connection:
        connection.execute(BREAKS["labels are counted right"])
    told = CliRunner().invoke(command, ["check", "--store", where, "--json"])
    found = json.loads(told.output)
    assert (told.exit_code, found["sound"], found["laws"]["labels are counted right"]) == (1, False, 2)


def test_a_backup_of_a_file_in_use_is_a_store_of_its_own(tmp_path: Path) -> None:
    where, out = used(tmp_path / "feedback.db"), tmp_path / "backup.db"
    database = open_database(where)
    backup(where, out)
    database.close()
    with reading(where) as original, reading(str(out)) as saved:
        assert digests(saved) == digests(original)
    assert not list(tmp_path.glob("backup.db?*")), "one file, and nothing beside it"
    open_database(out).close()
    with pytest.raises(InvalidConfig):
        backup(where, out)


def test_a_backup_of_postgresql_is_what_pg_restore_reads(
    tmp_path: Path, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(find("pg_dump") or "").parent
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    where, out = used(postgresql_server.new_database()), tmp_path / "backup.dump"
    backup(where, out)
    again = postgresql_server.new_database(empty=True)
    subprocess.run([folder / "pg_restore", "--no-owner", "-d", again, out], check=True, timeout=60)
    with reading(where) as original, reading(again) as restored:
        assert digests(restored) == digests(original)


def test_without_pg_dump_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_server: PostgresqlServer
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match="postgresql-client"):
        backup(postgresql_server.new_database(), tmp_path / "backup.dump")


def test_a_store_that_is_not_there_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    for arguments in (["check"], ["migrate"], ["backup", str(tmp_path / "out")]):
        refused = CliRunner().invoke(command, [*arguments, "--store", str(tmp_path / "nowhere.db")])
        assert isinstance(refused.exception, NotFound)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_from_one_engine_to_the_other_and_back(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    where, back = used(tmp_path / "feedback.db"), str(tmp_path / "back.db")
    database = postgresql_server.new_database(empty=True)
    first = CliRunner().invoke(command, ["copy", where, database, "--json"], catch_exceptions=False)
    second = CliRunner().invoke(command, ["copy", database, back, "--json"], catch_exceptions=False)
    assert json.loads(first.output) == json.loads(second.output)
    told = CliRunner().invoke(command, ["migrate", "--store", back, "--json"], catch_exceptions=False)
    assert json.loads(told.output) == {"version_before": SCHEMA_VERSION, "version": SCHEMA_VERSION}
