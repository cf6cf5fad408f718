"""Who may call what: bearer token -> role -> methods. Health and reflection are open to everybody."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from iterpo.errors import PermissionDenied, Unauthenticated
from services.calls import Method

OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")

ANNOTATOR_METHODS = (
    "LabelingService/LeaseTasks",
    "LabelingService/ExtendLease",
    "LabelingService/ReleaseTask",
    "LabelingService/SubmitLabels",
    "LabelingService/UndoLabel",
    "LabelingService/Annotate",
    "LabelingService/ListLabelers",
)
ROLE_METHODS: Mapping[str, tuple[str, ...]] = {
    "client": (
        "InferenceService/Generate",
        "InferenceService/GetModel",
        "PolicyService/ListPolicies",
        "LabelingService/SubmitFeedback",
        "LearnerService/ListAlgorithms",
        "LearnerService/Explain",
    ),
    "replica": (
        "PolicyService/ListPolicies",
        "PolicyService/WatchPolicies",
        "PolicyService/FetchPolicy",
        "PolicyService/ReportReplica",
    ),
    "annotator": ANNOTATOR_METHODS,
    "lead": (
        *ANNOTATOR_METHODS,
        "LabelingService/RecordCompletions",
        "LabelingService/CreateTasks",
        "LabelingService/SubmitFeedback",
        "LabelingService/StreamFeedback",
        "LabelingService/ListAnnotators",
        "LabelingService/SetAnnotatorState",
        "LabelingService/GetLabelReport",
        "PolicyService/ListPolicies",
        "LearnerService/ListTouched",
        "LearnerService/ListRuns",
        "LearnerService/GetRun",
        "LearnerService/WatchRun",
        "LearnerService/DescribeRun",
        "LearnerService/GetBatch",
        "LearnerService/ExplainBatch",
        "LearnerService/ListAlgorithms",
    ),
    "learner": (
        "InferenceService/Generate",
        "InferenceService/Sample",
        "InferenceService/Score",
        "InferenceService/GetModel",
        "PolicyService/LoadPolicy",
        "PolicyService/PromotePolicy",
        "PolicyService/RetirePolicy",
        "PolicyService/ListPolicies",
        "LabelingService/RecordCompletions",
        "LabelingService/ScoreCompletions",
        "LabelingService/CreateTasks",
        "LabelingService/StreamFeedback",
        "LabelingService/ListLabelers",
    ),
    "admin": ("*",),
}
"""Service names without their package. Rolling back and steering runs are an operator's: `admin` alone may."""

ROLES = tuple(ROLE_METHODS)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for."""

    role: str
    name: str = ""
    """Of a token that is bound to a person: the only annotator or user it may speak for. Empty: anybody."""
    key: str = ""
    """Tells tokens apart without telling the token; empty without one."""

    @classmethod
    def of(cls, text: str, token: str = "") -> Identity:
        """From a tokens file: `role` or `role:name`."""
        role, _, name = text.partition(":")
        return cls(role, name, hashlib.sha256(token.encode()).hexdigest()[:16] if token else "")


_caller: ContextVar[Identity | None] = ContextVar("caller", default=None)


def check_speaks_for(name: str) -> None:
    """Raises PermissionDenied: MACHINE_NAME for a name with a slash, which machine labelers have and nobody may use;
    WRONG_ANNOTATOR when the call's token is bound to another person."""
    if "/" in name:
        raise PermissionDenied(f"{name!r} is a machine's name.", "Use a name without a slash.", "MACHINE_NAME")
    caller = _caller.get()
    if caller is not None and caller.name and caller.name != name:
        raise PermissionDenied(
            f"The token belongs to {caller.name!r}, and the call speaks for {name!r}.",
            "Use your own name, or a token of that person.",
            "WRONG_ANNOTATOR",
        )


def caller_key() -> str:
    """Tells callers apart by their tokens; empty without tokens: then all are one caller."""
    caller = _caller.get()
    return "" if caller is None else caller.key


def caller_name() -> str:
    """The person whose token the call carries; empty for a token that is bound to nobody, and without tokens."""
    caller = _caller.get()
    return "" if caller is None else caller.name


class TokenGuard:
    """Refuses calls whose token has no role, or whose role may not call the method. No tokens: everybody may."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = {token: Identity.of(text, token) for token, text in tokens.items()}

    @property
    def open_to_all(self) -> bool:
        return not self._tokens

    @asynccontextmanager
    async def __call__(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        if method.service not in OPEN_SERVICES:
            self.admit(_authorization(context), method)
        yield

    def admit(self, authorization: str, method: Method) -> None:
        """Note who calls, from `Bearer TOKEN`. Raises Unauthenticated, or PermissionDenied for another's role."""
        if self._tokens:
            identity = self._identity(authorization)
            check_role(identity.role, method)
            _caller.set(identity)

    def _identity(self, authorization: str) -> Identity:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("This server needs a token.", "Send the metadata `authorization: Bearer TOKEN`.")
        # Every token is compared, in constant time each: the answer's timing tells nothing about any of them.
        matches = [
            identity for known, identity in self._tokens.items() if hmac.compare_digest(known.encode(), token.encode())
        ]
        if not matches:
            raise Unauthenticated("The token is unknown here.", "Use one of auth.tokens_file.", "UNKNOWN_TOKEN")
        return matches[0]


def check_role(role: str, method: Method) -> None:
    """Raises PermissionDenied, naming a role that would do, unless `role` may call `method`."""
    name = f"{method.service.rpartition('.')[2]}/{method.name}"
    allowed = [r for r, methods in ROLE_METHODS.items() if name in methods or "*" in methods]
    if role not in allowed:
        raise PermissionDenied(
            f"The role `{role}` may not call {name}.", f"Use a token with the role {' or '.join(allowed)}."
        )


def _authorization(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    metadata = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == "authorization"), "")
