"""`POST /v1/feedback`: what a user says of an answer becomes a label, by way of the labeling service.

    {"completion_id": "chatcmpl-...-0", "user": "u17", "thumb": "up"}
    {"completion_id": "chatcmpl-...-1", "user": "u17", "over": "chatcmpl-...-0", "strength": 2}
    {"completion_id": "chatcmpl-...-0", "user": "u17", "edited": "a better answer"}

The answers are recorded first, as this server gave them, tokens and policy version included: a client names them, and
cannot make them up.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from iterpo.clients.labeling import LabelingClient
from services.auth import check_speaks_for
from services.ids import MAX_ID_CHARACTERS
from services.inference.openai.asked import BadField, Fields
from services.inference.openai.served import Served

DEFAULT_RUN = "feedback"
"""Whose learner reads it, unless the request names a run."""
SERVED_RUN = "served"
"""Under which the answers themselves are recorded, once."""
MOST_CHARACTERS = 100_000


class Feedback:
    def __init__(self, labeling: Callable[[], LabelingClient], served: Served | None = None) -> None:
        """`labeling` makes a client when it is first needed: the service need not be there before."""
        self.served = served or Served()
        self._make = labeling
        self._labeling: LabelingClient | None = None

    async def take(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises InvalidInput, NotFound (NOT_SERVED), PermissionDenied, and what the labeling service raises."""
        fields = Fields(body)
        completion_id, user = _name(fields, "completion_id"), _name(fields, "user")
        run_id = fields.of("run_id", str, DEFAULT_RUN)
        request_id = fields.of("request_id", str, "") or uuid.uuid4().hex
        thumb, over = fields.of("thumb", str, ""), fields.of("over", str, "")
        edited = fields.of("edited", str, "")
        strength = fields.whole("strength", 0, 0, 3)
        fields.nothing_else()
        check_speaks_for(user)
        if [bool(thumb), bool(over), bool(edited)].count(True) != 1:
            raise BadField(
                "thumb", "There is no verdict, or more than one.", "Give one of thumb, over and edited, and not empty."
            )
        if thumb not in ("", "up", "down"):
            raise BadField("thumb", f"thumb is {thumb!r}.", "Use up or down.")
        if len(edited) > MOST_CHARACTERS:
            raise BadField("edited", f"edited has {len(edited)} characters.", f"Use at most {MOST_CHARACTERS}.")
        groups = {g.group_id: g for g in (self.served.group_of(each) for each in (completion_id, over) if each)}

        def send() -> list[str]:
            self._labeling = self._labeling or self._make()
            for group in groups.values():
                self._labeling.record(SERVED_RUN, "none", [group], f"served/{group.group_id}")
            if over:
                return self._labeling.kept(run_id, user, None, completion_id, over, request_id, strength)
            if edited:
                return self._labeling.edited(run_id, user, None, completion_id, edited, request_id)
            return self._labeling.thumb(run_id, user, None, completion_id, thumb == "up", request_id)

        return {"object": "feedback", "event_ids": await asyncio.to_thread(send)}


def _name(fields: Fields, name: str) -> str:
    value: str = fields.of(name, str, "")
    if not value.strip() or len(value) > MAX_ID_CHARACTERS:
        raise BadField(name, f"{name} is empty or too long.", f"Give {name}, at most {MAX_ID_CHARACTERS} characters.")
    return value
