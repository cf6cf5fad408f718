"""What several folders of tests share: a feedback store of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.postgresql_server import PostgresqlServer, find, temporary_postgresql

Place = Callable[[str], Path | str]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One a process of the tests."""
    if find("postgres") is None:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    with temporary_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Name -> where a feedback store of this name is, the same for the same name: a file, or a database of a real
    PostgreSQL. What holds for one must hold for the other."""
    if request.param == "sqlite":
        return lambda name: tmp_path / name
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    known: dict[str, str] = {}

    def of(name: str) -> str:
        if name not in known:
            known[name] = server.new_database()
        return known[name]

    return of
