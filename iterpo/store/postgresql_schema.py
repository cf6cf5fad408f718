"""A PostgreSQL database's tables: made in an empty one, brought up to date when that is asked for, checked always."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from iterpo.errors import WrongState
from iterpo.store.migrate import SCHEMA_VERSION, revision, upgrade_postgresql

SETTING_UP = 0x69747270
"""Advisory lock of whoever makes or changes the tables, one at a time."""


def check_schema(address: str, session: Mapping[str, Any]) -> None:
    """Makes the tables of an empty database. Raises WrongState: STORE_OLD, STORE_TOO_NEW, STORE_NOT_DURABLE."""
    with psycopg.connect(address, **session) as connection:
        if _word(connection, "SHOW fsync") == "off":
            raise WrongState(
                "PostgreSQL runs with fsync = off: an acknowledged label could be lost.",
                "Set fsync = on in postgresql.conf and reload it.",
                "STORE_NOT_DURABLE",
            )
        version = schema_version(connection)
    if version == 0:
        migrate(address, session)
        return
    if version > SCHEMA_VERSION:
        raise WrongState(
            f"The database has schema version {version}; this iterpo knows versions up to {SCHEMA_VERSION}.",
            "Install the newer iterpo that wrote it, or set labeling.store to another database.",
            "STORE_TOO_NEW",
        )
    if version < SCHEMA_VERSION:
        raise WrongState(
            f"The database has schema version {version}; this iterpo needs {SCHEMA_VERSION}.",
            "Stop all labeling servers, then: iterpo store migrate.",
            "STORE_OLD",
        )


def schema_version(connection: psycopg.Connection[Any]) -> int:
    """0: there are no tables yet."""
    if _word(connection, "SELECT coalesce(to_regclass('alembic_version')::text, '')") == "":
        return 0
    return int(_word(connection, "SELECT coalesce(max(version_num), '0') FROM alembic_version"))


def migrate(address: str, session: Mapping[str, Any]) -> tuple[int, int]:
    """The version before and after."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(address, **session)

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({SETTING_UP}, 1)"))
        before = schema_version(connection.connection.driver_connection)  # type: ignore[arg-type]
        upgrade_postgresql(connection)
    return before, SCHEMA_VERSION


def _word(connection: psycopg.Connection[Any], query: str) -> str:
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else ""


__all__ = ["check_schema", "migrate", "revision", "schema_version"]
