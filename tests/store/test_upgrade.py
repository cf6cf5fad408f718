"""What the release before wrote opens in this one: `releases/N` holds a feedback store, a ledger and a policy folder as
that release left them. With every raise of the schema a folder joins, made by the release that is left behind."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from iterpo.learner.ledger import Ledger
from iterpo.policies import manifest
from iterpo.store.check import check
from iterpo.store.copying import copy
from iterpo.store.database import open_database
from iterpo.store.labels import count_labels
from iterpo.store.migrate import OLDEST_VERSION, SCHEMA_VERSION
from iterpo.store.whole import filling, migrate, reading
from iterpo.types import AnnotatorState, Outcome
from tests.labeling.test_tasks import WAIT, People
from tests.store.postgresql_server import PostgresqlServer

RELEASES = sorted(Path(__file__).with_name("releases").iterdir())


def left_by(release: Path, name: str, folder: Path) -> Path:
    path = folder / f"{name}.db"
    connection = apsw.Connection(str(path))
    connection.execute((release / f"{name}.sql").read_text())
    connection.close()
    return path


def test_there_is_a_release_for_every_version_but_this_one() -> None:
    """Version 4, from before there were releases, is made by hand in test_counts.py."""
    assert [int(release.name) for release in RELEASES] == list(range(OLDEST_VERSION + 1, SCHEMA_VERSION))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: f"from {path.name}")
def test_a_feedback_store_of_the_release_before_is_brought_up_to_date_and_goes_on(
    release: Path, tmp_path: Path
) -> None:
    people = People(left_by(release, "feedback", tmp_path))
    people.people.start()
    people._requests = 1000  # ids that it has not used
    events = people.database.events("", 0, 1000).result(WAIT)
    counted = people.database.read(lambda connection: count_labels(connection, "")).result(WAIT)
    assert [event.cursor for event in events] == list(range(1, len(events) + 1))
    assert counted == ({"tie": 1, "second": 1}, {"people": 2})
    assert people.people.crowd.state("bob") is AnnotatorState.EXCLUDED
    [lease, *_] = people.lease("cem")
    assert people.submit(lease, Outcome.FIRST).accepted
    people.desk.close()
    people.database.close()
    with reading(str(tmp_path / "feedback.db")) as whole:
        assert [finding.law for finding in check(whole, 2_000_000_000.0) if finding.broken] == []


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: f"from {path.name}")
def test_it_is_migrated_and_copied_to_postgresql(
    release: Path, tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    path, there = left_by(release, "feedback", tmp_path), postgresql_server.new_database(empty=True)
    assert migrate(str(path)) == (int(release.name), SCHEMA_VERSION)
    with reading(str(path), alone=True) as whole, filling(there) as empty:
        copied = copy(whole, empty, lambda _table, _rows: None)
    database = open_database(there)
    assert len(database.events("", 0, 1000).result(WAIT)) == next(c.rows for c in copied if c.table == "events")
    database.close()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: f"from {path.name}")
def test_a_ledger_of_the_release_before_has_its_runs(release: Path, tmp_path: Path) -> None:
    ledger = Ledger(left_by(release, "learner", tmp_path))
    record = ledger.get("r")
    assert (record.config["algorithm"], record.progress.iteration, record.checkpoint) == ("grpo", 1, "000001")
    assert [row.heldout_reward for row in ledger.rows("r")] == [0.6]
    assert ledger.consumed("r") == ["e1", "e2"]
    ledger.close()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: f"from {path.name}")
def test_a_policy_of_the_release_before_is_what_its_digest_says(release: Path) -> None:
    made, files = manifest.read(release / "policies", 1, (release / "digest").read_text())
    assert (made.version, made.method) == (1, "grpo")
    assert set(files) == set(manifest.ADAPTER_FILES)
