"""Which version of the tables this program knows, and how a database gets there. Alembic's scripts in `migrations` are
the definition; SQLite's are written out once and run by its own connection, whose file system tests replace."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection as Engine

SCHEMA_VERSION = 6
"""Of the tables and of the event bodies. Raise it with every change that an older program would misread. Event bodies
need no migration: they gain fields only."""
OLDEST_VERSION = 4
"""That can be brought up to date."""


@lru_cache(maxsize=4)
def sqlite_statements(version: int) -> str:
    """What makes a SQLite file of this version (0: a new one) one of SCHEMA_VERSION."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    written = io.StringIO()
    context = MigrationContext.configure(dialect_name="sqlite", opts={"as_sql": True, "output_buffer": written})
    with Operations.context(context):
        newest_first = _scripts().iterate_revisions("head", revision(version) if version else "base")
        for script in reversed(list(newest_first)):
            script.module.upgrade()
    return written.getvalue()


def upgrade_postgresql(connection: Engine) -> None:
    """To SCHEMA_VERSION, all or nothing, within the connection's transaction."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def revision(version: int) -> str:
    """Alembic's name of it."""
    return f"{version:04d}"


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "iterpo.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
