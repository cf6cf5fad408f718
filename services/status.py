"""Errors on their way out: IterpoError -> gRPC status with google.rpc.ErrorInfo, everything else -> INTERNAL."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from iterpo.errors import IterpoError, ResourceExhausted
from services.calls import Method

logger = logging.getLogger(__name__)

DOMAIN = "iterpo"
MAX_SENTENCE = 1000
"""Characters kept of a message and of a fix: HTTP/2 peers drop calls whose trailers grow beyond 8 KiB."""


@asynccontextmanager
async def error_guard(method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Aborts the call with a rich status. Cancellation and aborts pass through untouched."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except IterpoError as error:
        await context.abort_with_status(rich_status(error))
    except Exception as error:  # noqa: BLE001  # whatever slipped through: the caller gets an id, the log the traceback
        await context.abort_with_status(rich_status(_incident(method, error)))


def rich_status(error: IterpoError) -> grpc.Status:
    """`ErrorInfo.metadata` holds the class (`error`) and the remedy (`fix`); the message holds both sentences.
    RetryInfo says when a full queue or an empty quota is worth another try."""
    message, fix = error.message[:MAX_SENTENCE], error.fix[:MAX_SENTENCE]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata.update({"error": type(error).__name__, "fix": fix})
    details = [_packed(info)]
    if isinstance(error, ResourceExhausted) and error.retry_seconds:
        wait = duration_pb2.Duration(seconds=error.retry_seconds)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=wait)))
    code = getattr(grpc.StatusCode, error.code)
    status = status_pb2.Status(code=code.value[0], message=f"{message} {fix}".strip(), details=details)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _packed(message: Message) -> any_pb2.Any:
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


def _incident(method: Method, error: Exception) -> IterpoError:
    incident = uuid.uuid4().hex[:12]
    logger.error("incident %s in %s/%s", incident, method.service, method.name, exc_info=error)
    return IterpoError(f"Something unexpected happened (incident {incident}).", "The server's log has the details.")
