"""Every error a user can meet, in one file. Each says what is wrong and how to mend it.

`reason` is the stable, machine-readable word that crosses the wire (google.rpc.ErrorInfo.reason); `code` is the
gRPC status it maps to (see services/host.py). The command line prints the message and exits with 2.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class IterpoError(Exception):
    """Base of all. `message` states the problem, `fix` the remedy, both as sentences."""

    code = "INTERNAL"
    reason = "INTERNAL"

    def __init__(self, message: str, fix: str = "", reason: str | None = None) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix
        if reason is not None:
            self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class InvalidInput(IterpoError, ValueError):
    """The request or configuration can never work as it stands."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"


class InvalidConfig(InvalidInput):
    reason = "INVALID_CONFIG"


class NotFound(IterpoError, LookupError):
    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class Conflict(IterpoError):
    """The same id was already used for something else."""

    code = "ALREADY_EXISTS"
    reason = "CONFLICT"


class WrongState(IterpoError, RuntimeError):
    """The call is right, the moment is not."""

    code = "FAILED_PRECONDITION"
    reason = "WRONG_STATE"


class PolicyRejected(WrongState):
    """A policy version failed a proof; `reason` says which."""

    reason = "POLICY_REJECTED"


class Unauthenticated(IterpoError):
    code = "UNAUTHENTICATED"
    reason = "MISSING_TOKEN"


class PermissionDenied(IterpoError):
    code = "PERMISSION_DENIED"
    reason = "WRONG_ROLE"


class ResourceExhausted(IterpoError):
    """A disk, a queue or a limit is full."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, fix: str = "", reason: str | None = None, retry_seconds: int = 0) -> None:
        """`retry_seconds`: after which it may go through; 0: nobody knows."""
        super().__init__(message, fix, reason)
        self.retry_seconds = retry_seconds


class Unavailable(IterpoError, ConnectionError):
    """The other process is not there at the moment. The only error worth retrying."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class CorruptModel(IterpoError):
    code = "FAILED_PRECONDITION"
    reason = "CORRUPT_MODEL"


def system_error(error: OSError) -> IterpoError:
    """What the operating system said, for the roots of the programs: a full or unwritable disk is no bug to trace."""
    place = f": {error.filename}" if error.filename else ""
    said = f"{error.strerror or error}{place}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(said, "Free disk space there, or set data_dir to another disk.", "DISK_FULL")
    return WrongState(
        said, "Mend the path or its permissions, or set data_dir to a directory that may be written.", "SYSTEM_ERROR"
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: of those that look alike, one of the same letters first, since difflib
    finds `gspo` as near to `gpro` as `grpo`. None where nothing is near."""
    alike = get_close_matches(name, list(known))
    return next((each for each in alike if sorted(each) == sorted(name)), alike[0] if alike else None)
