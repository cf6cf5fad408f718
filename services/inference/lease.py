"""A request's hold on the version that answers it: while it lasts, the version stays in the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from iterpo.errors import IterpoError
from iterpo.types import PolicyVersion
from services.inference.delivery import Source

CALLERS_FAULT = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "CANCELLED", "PERMISSION_DENIED")


@dataclass
class Lease:
    """Context manager. Made by PolicyRegistry.lease, and entered or held at once: nothing may be awaited in between."""

    version: PolicyVersion
    source: Source
    on_enter: Callable[[Lease], None]
    on_leave: Callable[[Lease, bool | None], None]
    """With whether the request failed; None when it was given up, or was wrong."""
    live: bool
    """An application's, which left the choice of the version to us."""
    spoiled: bool = False
    """The engine ended the answer before it was one."""
    _holds: bool = False

    def hold(self) -> Self:
        """Enter now what is used a little later."""
        if not self._holds:
            self._holds = True
            self.on_enter(self)
        return self

    def release(self, failed: bool | None = None) -> None:
        """Safe to call twice."""
        if self._holds:
            self._holds = False
            self.on_leave(self, failed)

    def __enter__(self) -> Self:
        return self.hold()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(True if self.spoiled and error is None else has_failed(error))


def has_failed(error: BaseException | None) -> bool | None:
    """Whether a request that ended with this did fail; None: it was cancelled, or the caller's own fault."""
    if error is None:
        return False
    if not isinstance(error, Exception) or (isinstance(error, IterpoError) and error.code in CALLERS_FAULT):
        return None
    return True
