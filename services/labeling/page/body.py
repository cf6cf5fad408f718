"""A request's JSON, checked: every wrong field is an InvalidInput that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from iterpo.errors import InvalidInput
from services.ids import MAX_ID_CHARACTERS
from services.json_body import json_object
from services.labeling.limits import in_range

MAX_BODY_BYTES = 256 * 1024
"""A rationale of the allowed length fits, every character escaped."""


class Body:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    @classmethod
    async def of(cls, request: Request) -> Body:
        """Raises InvalidInput for what is too large or no JSON object."""
        return cls(await json_object(request, MAX_BODY_BYTES))

    def text(self, name: str, most: int = MAX_ID_CHARACTERS) -> str:
        """A string, "" when it is absent."""
        value = self._fields.get(name, "")
        if not isinstance(value, str) or not _is_unicode(value):
            raise InvalidInput(f"{name} is no text.", "Send a string.", "NOT_TEXT")
        if len(value) > most:
            raise InvalidInput(f"{name} has {len(value)} characters.", f"Use at most {most}.", "TEXT_TOO_LONG")
        return value

    def needed_text(self, name: str, most: int = MAX_ID_CHARACTERS) -> str:
        value = self.text(name, most)
        if not value.strip():
            raise InvalidInput(f"{name} is empty.", f"Give {name}.", "INVALID_ID" if name.endswith("_id") else "EMPTY")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """0 when it is absent."""
        value = self._fields.get(name, 0)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise InvalidInput(f"{name} is no number.", f"Use a number from {low:g} to {high:g}.", "OUT_OF_RANGE")
        # An integer may be too large for a float; it is out of every range.
        in_range(name, float(value) if abs(value) < 1e300 else float("inf"), low, high)
        return float(value)

    def whole_number(self, name: str, low: int, high: int) -> int:
        value = self.number(name, low, high)
        if value != int(value):
            raise InvalidInput(f"{name} is {value:g}.", f"Use a whole number from {low} to {high}.", "OUT_OF_RANGE")
        return int(value)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        return _chosen(name, self._fields.get(name), choices)

    def choices(self, name: str, choices: Sequence[str], most: int = 64) -> dict[str, str]:
        """An object of key -> choice, {} when it is absent."""
        value = self._fields.get(name, {})
        if not isinstance(value, dict) or len(value) > most:
            raise InvalidInput(
                f"{name} is no object, or a large one.", f"Send at most {most} entries.", "NOT_AN_OBJECT"
            )
        return {_key(name, key): _chosen(f"{name}.{key[:40]}", each, choices) for key, each in value.items()}


def _key(name: str, key: str) -> str:
    if not key.strip() or len(key) > MAX_ID_CHARACTERS or not _is_unicode(key):
        raise InvalidInput(f"{name} has an impossible key.", "Use the guideline's aspects.", "UNKNOWN_ASPECT")
    return key


def _chosen(name: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InvalidInput(f"{name} is {str(value)[:40]!r}.", f"Use one of {', '.join(choices)}.", "UNKNOWN_CHOICE")
    return str(value)


def _is_unicode(value: str) -> bool:
    """JSON may hold half a surrogate pair, which no store and no wire takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
