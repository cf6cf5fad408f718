"""Where a feedback store is: a file, or a PostgreSQL database."""

from __future__ import annotations

import os
import re
from pathlib import Path

from iterpo.errors import InvalidConfig

POSTGRESQL = ("postgresql://", "postgres://")
"""How the address of a database begins that is no file."""


def is_postgresql(where: object) -> bool:
    return str(where).startswith(POSTGRESQL)


def use_password(file: Path | None) -> None:
    """For PostgreSQL's client in this process, as PGPASSWORD is. Raises InvalidConfig."""
    if file is None:
        return
    try:
        os.environ["PGPASSWORD"] = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidConfig(
            f"labeling.store_password_file cannot be read: {error.strerror}: {file}.", "Name a readable file."
        ) from error


def without_password(address: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", address)
