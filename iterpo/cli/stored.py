"""What the labeling service has stored, for commands that read it to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iterpo.config import Settings
    from iterpo.types import FeedbackEvent

IDLE_SECONDS = 1.0
"""The store is read to its end; in a busy run, up to the events of the moment when the command began."""


def stored_events(settings: Settings, run_id: str) -> Iterator[FeedbackEvent]:
    """What the labeling service has stored until now, over StreamFeedback. Raises IterpoErrors."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient

    began = time.time()
    with connect_service(settings, "labeling", "learner") as channel:
        for event in LabelingClient(channel).stream(run_id, 0, IDLE_SECONDS):
            if event.created_at > began:
                return
            yield event
