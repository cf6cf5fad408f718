"""Routes of the JSON API, and errors as the page gets them: {error, fix, reason} with the HTTP status that fits."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iterpo.errors import IterpoError
from services.http_server import STATUS

logger = logging.getLogger(__name__)


Handler = Callable[[Request], Awaitable[JSONResponse]]


def reading(path: str, handler: Handler) -> Route:
    return Route(path, _answered(handler), methods=["GET"])


def acting(path: str, handler: Handler) -> Route:
    """Whatever changes something, leases included, is a POST: same_origin.py guards those."""
    return Route(path, _answered(handler), methods=["POST"])


def error_response(error: IterpoError) -> JSONResponse:
    content = {"error": error.message, "fix": error.fix, "reason": error.reason}
    return JSONResponse(content, STATUS.get(error.code, 500))


def done(**fields: Any) -> JSONResponse:
    return JSONResponse(fields)


def _answered(handler: Handler) -> Handler:
    async def answer(request: Request) -> JSONResponse:
        try:
            return await handler(request)
        except IterpoError as error:
            return error_response(error)
        except Exception as error:  # noqa: BLE001  # whatever slipped through: the caller gets an id, the log the traceback
            return error_response(_incident(request, error))

    return answer


def _incident(request: Request, error: Exception) -> IterpoError:
    incident = uuid.uuid4().hex[:12]
    logger.error("incident %s in %s", incident, request.url.path, exc_info=error)
    return IterpoError(f"Something unexpected happened (incident {incident}).", "The server's log has the details.")
