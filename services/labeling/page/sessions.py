"""Who a browser speaks for: a cookie that the server signs and does not have to remember.

The cookie holds a random session id, the person's name, the moment, and an HMAC whose key is derived from the server's
session key and the digest of the token that the person signed in with. What was thought of:

- A restart of the server. A table in memory would sign everybody out in the middle of a label; the token in the
  browser's storage would be any script's to read. The signed cookie survives, as the session key is kept in a file.
- A cookie made up by somebody. Needs the session key: who has seen the tokens file, which holds digests, cannot. Role
  and bound name are read from the tokens file at every request, never from the cookie: taking a token out of the file
  ends all its sessions within a second, changing its role changes theirs, and they end when the token does.
- A cookie that was stolen. HttpOnly keeps it from scripts, `Secure` from clear text, SameSite=Strict from other
  sites' requests; it ends after 12 hours, and at sign-out. Signed-out ids are remembered until they would have ended;
  a restart forgets them, so a stolen cookie that was signed out may live again for the rest of its 12 hours.
- Guessing a token. Failures wait in one line (FailedSignIns): three guesses a second in all. Tokens are random, 256
  bits (`iterpo tokens new`).
- No tokens at all. Only a loopback address allows that, everybody on the machine may call everything by gRPC, and a
  name is no secret: the signature then proves nothing and need not. Foreign pages are kept out (same_origin.py).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iterpo.errors import InvalidConfig, InvalidInput, PermissionDenied, ResourceExhausted, Unauthenticated
from iterpo.labeling.annotator import MACHINE
from iterpo.tokens import Grant
from services.auth import Identity
from services.ids import MAX_ID_CHARACTERS
from services.tokens import Tokens

ROLES = ("annotator", "lead", "admin")
"""Who may sign in. Without tokens everybody is `admin`."""
LIFETIME_SECONDS = 12 * 3600.0
CLOCK_SLACK_SECONDS = 60.0
"""How far in the future a cookie may have been issued: clocks are set back a little now and then."""
EVERYBODY = Grant("everybody, without a token", "admin")
MOST_SIGNED_OUT = 10_000
DELAY_SECONDS = 0.3
KEY_BYTES = 32
"""Of the session key: as many as the digest that is made with it has."""
MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Session:
    session_id: str
    name: str
    role: str
    issued: float
    """Seconds since the epoch."""


class Sessions:
    """For one event loop. `tokens` are read once, as the rest of the service reads them."""

    def __init__(self, tokens: Tokens, key: bytes, clock: Callable[[], float] = time.time) -> None:
        """`key`: the server's session key."""
        self._clock, self._tokens, self._key = clock, tokens, key
        self._signed_out: OrderedDict[str, float] = OrderedDict()

    @property
    def needs_token(self) -> bool:
        return not self._tokens.open_to_all

    def sign_in(self, token: str, name: str) -> tuple[Session, str]:
        """The session and its cookie. Raises Unauthenticated UNKNOWN_TOKEN, PermissionDenied, or InvalidInput."""
        grant = self._tokens.grant(token) if self.needs_token else EVERYBODY
        identity = Identity.of(grant)
        if identity.role not in ROLES:
            raise PermissionDenied(
                f"The role `{identity.role}` has no page.",
                f"Use a token with the role {', '.join(ROLES[:-1])} or admin.",
            )
        if identity.name and name and name != identity.name:
            raise PermissionDenied(
                "The token is another person's.", "Leave the name empty, or use your own token.", "WRONG_NAME"
            )
        session = Session(secrets.token_hex(16), checked_name(identity.name or name), identity.role, self._clock())
        content = _pack([session.session_id, session.name, session.issued])
        return session, f"{grant.digest[:16]}.{content}.{self._sign(grant, content)}"

    def read(self, cookie: str) -> Session:
        """Raises Unauthenticated: NOT_SIGNED_IN without a usable cookie, SESSION_ENDED for one that was good once."""
        key, _, rest = cookie.partition(".")
        content, _, signature = rest.partition(".")
        grants = self._tokens.grants if self.needs_token else [EVERYBODY]
        grant = next((each for each in grants if each.digest[:16] == key), None)
        if grant is None or not hmac.compare_digest(self._sign(grant, content).encode(), signature.encode()):
            raise Unauthenticated("You are not signed in.", "Sign in with your token or name.", "NOT_SIGNED_IN")
        session_id, name, issued = _unpack(content)
        age = self._clock() - issued
        over = self._clock() > grant.ends() or session_id in self._signed_out
        if over or not -CLOCK_SLACK_SECONDS <= age < LIFETIME_SECONDS:
            raise Unauthenticated("Your session has ended.", "Sign in again: nothing is lost.", "SESSION_ENDED")
        return Session(session_id, grant.person or name, grant.role, issued)

    def sign_out(self, session: Session) -> None:
        now = self._clock()
        while self._signed_out and (
            next(iter(self._signed_out.values())) < now or len(self._signed_out) >= MOST_SIGNED_OUT
        ):
            self._signed_out.popitem(last=False)
        self._signed_out[session.session_id] = session.issued + LIFETIME_SECONDS

    def _sign(self, grant: Grant, content: str) -> str:
        key = hmac.digest(self._key, f"iterpo page, {grant.digest}".encode(), hashlib.sha256)
        return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()


class FailedSignIns:
    """Failed sign-ins are answered one after the other, slowly; good ones do not wait."""

    def __init__(self, delay_seconds: float = DELAY_SECONDS) -> None:
        self._delay_seconds = delay_seconds
        self._line = asyncio.Lock()
        self._waiting = 0

    async def wait(self) -> None:
        """Raises ResourceExhausted at once when the line is long."""
        if self._waiting >= MOST_WAITING:
            raise ResourceExhausted("Too many sign-ins failed just now.", "Try again in a minute.", "TOO_MANY_FAILURES")
        self._waiting += 1
        try:
            async with self._line:
                await asyncio.sleep(self._delay_seconds)
        finally:
            self._waiting -= 1


def checked_name(name: str) -> str:
    """`name` without the space around it. Raises InvalidInput (INVALID_NAME)."""
    name = name.strip()
    if not name or len(name) > MAX_ID_CHARACTERS or not name.isprintable() or MACHINE in name:
        raise InvalidInput(
            f"{name[:40]!r} is no name of an annotator.",
            f"Give 1 to {MAX_ID_CHARACTERS} printable characters without `{MACHINE}`, which marks machines.",
            "INVALID_NAME",
        )
    return name


def _pack(parts: list[str | float]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _unpack(content: str) -> tuple[str, str, float]:
    """Of content whose signature is right: it is what `_pack` made, unless another version of iterpo did."""
    try:
        session_id, name, issued = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        return str(session_id), str(name), float(issued)
    except (ValueError, TypeError, binascii.Error) as error:
        raise Unauthenticated("Your session has ended.", "Sign in again: nothing is lost.", "SESSION_ENDED") from error


def session_key(path: Path) -> bytes:
    """What signs cookies: random, kept in a file that its owner alone may read; made when it is missing. Raises
    InvalidConfig for a file that holds too little: whoever guesses the key signs in as anybody."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # another server was first: its key holds
            os.link(unfinished, path)  # whole or not at all
        unfinished.unlink()
    key = path.read_bytes()
    if len(key) < KEY_BYTES:
        raise InvalidConfig(
            f"{path} holds {len(key)} bytes, and signs the pages' cookies.",
            f"Delete it, and a key is made; or put {KEY_BYTES} random bytes or more there.",
            "WEAK_SESSION_KEY",
        )
    return key
