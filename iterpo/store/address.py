"""Where a feedback store is: a file, or a PostgreSQL database."""

from __future__ import annotations

import re

POSTGRESQL = ("postgresql://", "postgres://")
"""How the address of a database begins that is no file."""


def is_postgresql(where: object) -> bool:
    return str(where).startswith(POSTGRESQL)


def without_password(address: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", address)
