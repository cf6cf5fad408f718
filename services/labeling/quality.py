"""Looks after the annotators' quality while the service runs: works it out anew when enough labels have come."""

from __future__ import annotations

import asyncio
import logging
import time

from iterpo.errors import IterpoError
from iterpo.labeling.leads import LeadDesk
from services.labeling.metrics import LabelingMetrics

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
LEAST_PAUSE = 100.0
"""Pauses are at least so many times as long as the work: it shares the interpreter with the labels, whose slowest
hundredth would otherwise wait for it."""


async def watch_quality(leads: LeadDesk, metrics: LabelingMetrics) -> None:
    """Until it is cancelled."""
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        if leads.crowd.due:
            began = time.monotonic()
            await asyncio.to_thread(_look, leads, metrics)
            pause = max(LOOK_SECONDS, LEAST_PAUSE * (time.monotonic() - began))


def _look(leads: LeadDesk, metrics: LabelingMetrics) -> None:
    try:
        changed = leads.judge()
    except IterpoError as error:  # a full or busy disk: the figures are worked out again at the next look
        logger.warning("annotators' states could not be recorded: %s", error)
        return
    except Exception:  # a bug in the figures must not end the watch without a word
        logger.exception("the annotators' quality could not be worked out")
        return
    for standing in changed:
        logger.info("an annotator is %s now: %s", standing.state.value, standing.reason)
    metrics.observe_quality(leads.profiles(), leads.crowd.agreement())
