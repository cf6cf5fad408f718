"""Tokens: who may call, in a file of one line each, in which a token stands as its digest.

    sha256:4f1a... = annotator:ann until 2027-03-31

`iterpo tokens new` makes a token, shows it once and writes its line. A token itself may stand there instead (at least
MIN_CHARACTERS): on one's own machine, where the commands take theirs from the same file. Tokens are random, 256 bits,
so one round of SHA-256 hides them: a slow hash protects words that people choose.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path

from iterpo.errors import InvalidConfig, system_error

ROLES = ("client", "replica", "annotator", "lead", "learner", "operator", "admin")
"""What each may call: services/auth.py. The last is the strongest."""
MIN_CHARACTERS = 16
HASHED = "sha256:"
_WHO = re.compile(r"(?P<role>\w+)(?::(?P<person>.+?))?(?:\s+until\s+(?P<until>\d{4}-\d\d-\d\d))?")


@dataclass(frozen=True, slots=True)
class Grant:
    """A line of the file."""

    digest: str
    """SHA-256 of the token, hexadecimal."""
    role: str
    person: str = ""
    """The only annotator or user that the token may speak for. Empty: anybody."""
    until: date | None = None
    """Its last day, in UTC. None: for ever."""
    token: str = ""
    """Where the file holds the token itself."""

    def ends(self) -> float:
        """Seconds since the epoch."""
        if self.until is None:
            return float("inf")
        return datetime.combine(self.until, time.max, UTC).timestamp()


def new_token() -> str:
    return "iterpo_" + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def line_of(grant: Grant) -> str:
    who = grant.role + (f":{grant.person}" if grant.person else "")
    return f"{HASHED}{grant.digest} = {who}" + (f" until {grant.until}" if grant.until else "")


def grant_of(token: str, who: str) -> Grant | None:
    """From a line's two sides; None for what is none. `token`: itself, or its digest after `sha256:`."""
    found = _WHO.fullmatch(who)
    if found is None or found["role"] not in ROLES:
        return None
    try:
        until = date.fromisoformat(found["until"]) if found["until"] else None
    except ValueError:
        return None
    if token.startswith(HASHED):
        digest = token.removeprefix(HASHED)
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            return None
        return Grant(digest, found["role"], found["person"] or "", until)
    if len(token) < MIN_CHARACTERS:
        return None
    return Grant(digest_of(token), found["role"], found["person"] or "", until, token)


def grant_in(line: str) -> Grant | None:
    """From a line of the file; None for a comment, and for what is none."""
    token, _, who = (part.strip().strip("\"'") for part in line.rpartition("="))
    return None if token.startswith("#") else grant_of(token, who)


def read_tokens(path: Path) -> list[Grant]:
    """Quotes and `#` comments are allowed. Raises InvalidConfig, never showing a token."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = system_error(error).message if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(
            f"The tokens file {path} cannot be read: {why}", "Name a readable file in auth.tokens_file."
        ) from error
    grants = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        grant = grant_in(line)
        if grant is None:
            raise InvalidConfig(
                f"{path}, line {number} is neither `token = role` nor `token = role:person until YYYY-MM-DD`.",
                f"A token has at least {MIN_CHARACTERS} characters, or is `sha256:` and 64 hexadecimal ones; roles are "
                f"{', '.join(ROLES)}. iterpo tokens new makes one.",
            )
        grants.append(grant)
    if not grants:
        raise InvalidConfig(f"{path} holds no tokens.", "iterpo tokens new, or leave auth.tokens_file empty.")
    return grants
