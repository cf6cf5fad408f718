"""Who may call what: bearer token -> role -> methods. Health and reflection are open to everybody."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc

from iterpo.errors import PermissionDenied, Unauthenticated
from services.calls import Method

OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")

ROLE_METHODS: Mapping[str, tuple[str, ...]] = {
    "client": (
        "InferenceService/Generate",
        "InferenceService/GetModel",
        "PolicyService/ListPolicies",
        "LearnerService/ListAlgorithms",
        "LearnerService/Explain",
    ),
    "annotator": (
        "LabelingService/LeaseTasks",
        "LabelingService/SubmitLabels",
        "LabelingService/ListLabelers",
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


class TokenGuard:
    """Refuses calls whose token has no role, or whose role may not call the method. No tokens: everybody may."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = dict(tokens)

    @asynccontextmanager
    async def __call__(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        if self._tokens and method.service not in OPEN_SERVICES:
            check_role(self._role(context), method)
        yield

    def _role(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        scheme, _, token = _authorization(context).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("This server needs a token.", "Send the metadata `authorization: Bearer TOKEN`.")
        # Every token is compared, in constant time each: the answer's timing tells nothing about any of them.
        matches = [role for known, role in self._tokens.items() if hmac.compare_digest(known.encode(), token.encode())]
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
