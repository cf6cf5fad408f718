"""A request's body as a JSON object, of bounded size."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from iterpo.errors import InvalidInput


async def json_object(request: Request, most_bytes: int) -> dict[str, Any]:
    """{} for no body. Raises InvalidInput (BODY_TOO_LARGE, NOT_JSON)."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most_bytes:
            raise InvalidInput("The request is too large.", f"Send at most {most_bytes // 1024} KiB.", "BODY_TOO_LARGE")
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The body is no JSON: {error}.", "Send a JSON object.", "NOT_JSON") from error
    if not isinstance(body, dict):
        raise InvalidInput("The body is no JSON object.", "Send an object.", "NOT_JSON")
    return body
