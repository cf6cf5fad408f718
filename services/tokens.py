"""`Tokens`: the tokens file as a server knows it, read anew when it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from iterpo.errors import InvalidConfig, Unauthenticated
from iterpo.tokens import Grant, digest_of, grant_of, read_tokens
from services.stamp import stamp

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How long a token that was taken out of the file may still be good."""


class Tokens:
    """`file`: looked at again and again; one that has become unreadable leaves what it held before, and is said. None:
    `grants` for ever."""

    def __init__(
        self, grants: Sequence[Grant] = (), file: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._file, self._clock = file, clock
        self._lock = threading.Lock()
        self._looked, self._stamp = time.monotonic(), stamp(file) if file else ()
        self._by_digest = {grant.digest: grant for grant in (read_tokens(file) if file else grants)}

    @classmethod
    def named(cls, tokens: Mapping[str, str]) -> Tokens:
        """Token -> `role` or `role:person`, as the file has them."""
        grants = [grant_of(token, who) for token, who in tokens.items()]
        unknown = [who for who, grant in zip(tokens.values(), grants, strict=True) if grant is None]
        if unknown:
            raise InvalidConfig(f"The role {unknown[0]!r} is none.", "Use one of iterpo.tokens.ROLES.")
        return cls([grant for grant in grants if grant is not None])

    @property
    def open_to_all(self) -> bool:
        return not self._by_digest

    @property
    def grants(self) -> list[Grant]:
        self._look()
        return list(self._by_digest.values())

    def grant(self, token: str) -> Grant:
        """Raises Unauthenticated: UNKNOWN_TOKEN, TOKEN_ENDED."""
        self._look()
        # Found by its digest: how long that takes says nothing about a token that is not known.
        found = self._by_digest.get(digest_of(token))
        if found is None:
            raise Unauthenticated("The token is unknown here.", "Ask whoever runs the server for one.", "UNKNOWN_TOKEN")
        if self._clock() > found.ends():
            raise Unauthenticated(f"The token ended on {found.until}.", "Ask for a new one.", "TOKEN_ENDED")
        return found

    def _look(self) -> None:
        if self._file is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        with self._lock:
            self._looked = time.monotonic()
            now = stamp(self._file)
            if now == self._stamp:
                return
            try:
                self._by_digest = {grant.digest: grant for grant in read_tokens(self._file)}
            except InvalidConfig as error:
                logger.error("the tokens file changed and cannot be used, what it held before holds on: %s", error)
                return
            self._stamp = now
            logger.info("the tokens file has changed: %d tokens", len(self._by_digest))
