"""Who may call what: bearer token -> grant -> role -> methods. What no role is given, nobody but an admin may call;
health and reflection are open to everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from iterpo.errors import PermissionDenied, Unauthenticated
from iterpo.tokens import Grant
from services.calls import Method
from services.rates import Rates
from services.tokens import Tokens

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
RUN_READING = (
    "LearnerService/ListTouched",
    "LearnerService/ListRuns",
    "LearnerService/GetRun",
    "LearnerService/WatchRun",
    "LearnerService/DescribeRun",
    "LearnerService/GetBatch",
    "LearnerService/ExplainBatch",
    "LearnerService/ListAlgorithms",
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
        *RUN_READING,
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
    "operator": (
        "InferenceService/GetModel",
        "PolicyService/ListPolicies",
        "PolicyService/LoadPolicy",
        "PolicyService/PromotePolicy",
        "PolicyService/RollbackPolicy",
        "PolicyService/RetirePolicy",
        "LabelingService/ListLabelers",
        "LabelingService/ListAnnotators",
        "LabelingService/GetLabelReport",
        "LearnerService/StartRun",
        "LearnerService/PauseRun",
        "LearnerService/ResumeRun",
        "LearnerService/StopRun",
        "LearnerService/ReplayRun",
        *RUN_READING,
        "LearnerService/Explain",
    ),
    "admin": ("*",),
}
"""Service names without their package."""

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
    def of(cls, grant: Grant) -> Identity:
        return cls(grant.role, grant.person, grant.digest[:16])


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


def forget_caller() -> None:
    """HTTP's requests may follow one another in one context: the next one's caller is not the last one's."""
    _caller.set(None)


def caller() -> Identity | None:
    """Whoever makes the call that is being answered; None without tokens."""
    return _caller.get()


def caller_name() -> str:
    """The person whose token the call carries; empty for a token that is bound to nobody, and without tokens."""
    caller = _caller.get()
    return "" if caller is None else caller.name


class TokenGuard:
    """Refuses calls whose token is unknown, has ended, or calls too often, and whose role may not call the method. No
    tokens: everybody may."""

    def __init__(self, tokens: Tokens, calls_per_second: float = 0.0) -> None:
        self._tokens = tokens
        self._rates = Rates(calls_per_second) if calls_per_second else None

    @property
    def open_to_all(self) -> bool:
        return self._tokens.open_to_all

    @asynccontextmanager
    async def __call__(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        if method.service not in OPEN_SERVICES:
            self.admit(_authorization(context), method)
        yield

    def admit(self, authorization: str, method: Method) -> None:
        """Note who calls, from `Bearer TOKEN`. Raises Unauthenticated, PermissionDenied for another's role, or
        ResourceExhausted (CALLS_TOO_OFTEN)."""
        if self._tokens.open_to_all:
            return
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("This server needs a token.", "Send the metadata `authorization: Bearer TOKEN`.")
        identity = Identity.of(self._tokens.grant(token))
        _caller.set(identity)  # a refused one too: the audit log says who was refused
        check_role(identity.role, method)
        if self._rates is not None:
            self._rates.take(identity.key)


def check_role(role: str, method: Method) -> None:
    """Raises PermissionDenied, naming a role that would do, unless `role` may call `method`."""
    name = method.short
    allowed = [r for r, methods in ROLE_METHODS.items() if name in methods or "*" in methods]
    if role not in allowed:
        raise PermissionDenied(
            f"The role `{role}` may not call {name}.", f"Use a token with the role {' or '.join(allowed)}."
        )


def _authorization(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    metadata = context.invocation_metadata() or ()
    return next((str(value) for key, value in metadata if key == "authorization"), "")
