"""Ids, names and settings in requests: what every service asks of them."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

from iterpo.errors import InvalidConfig, InvalidInput

MAX_ID_CHARACTERS = 256


def need_ids(request: Any, *names: str) -> None:
    """Raises InvalidInput (INVALID_ID) unless each named field of the message is a usable id."""
    for name in names:
        value = str(getattr(request, name))
        if not value.strip() or len(value) > MAX_ID_CHARACTERS:
            unique = " to a unique id, so that a retry is not a second effect" if name == "request_id" else ""
            raise InvalidInput(
                f"{name} is empty or longer than {MAX_ID_CHARACTERS} characters.", f"Set {name}{unique}.", "INVALID_ID"
            )


def check_run(name: str) -> None:
    """Raises InvalidConfig unless it can be a run's name, in paths and in `run/NAME`."""
    if not name or len(name) > 80 or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise InvalidConfig(f"{name!r} is no name for a run.", "Use letters, digits, `-`, `_` and `.`, at most 80.")


def plain_dict(struct: struct_pb2.Struct, name: str) -> dict[str, Any]:
    """The field `name` of a request, as JSON has it. Raises InvalidInput (NOT_A_NUMBER): JSON knows neither NaN nor
    infinity."""
    try:
        return json_format.MessageToDict(struct)
    except ValueError as error:
        raise InvalidInput(
            f"{name} holds a number that is none: {error}",
            "Send finite numbers, or leave the field out.",
            "NOT_A_NUMBER",
        ) from error
