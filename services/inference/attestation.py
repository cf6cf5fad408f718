"""Continuous attestation: is what serves still what was proved? A few live answers are scored once more.

The engine reads prompt and answer in one pass and gives the answer's log-probs; where it served from other weights than
it holds (a merge gone wrong, a stale cache), they differ from those that the tokens were drawn with. Exported: tokens
by whether the ratio exp(second - first) lies in [0.9, 1.1], and the mean absolute difference. In bfloat16 a share lies
outside with the right weights, too, as reading in one pass rounds otherwise than token by token: compare it with the
share before a swap, not with nothing.

Only answers drawn at temperature 1 from the whole vocabulary can be compared; others are not offered. One at a time:
the second pass must not be felt.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import dataclass

from iterpo.errors import IterpoError
from iterpo.types import SamplingSettings
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry

logger = logging.getLogger(__name__)

BOUNDS = (0.9, 1.1)
"""Of the ratio of probabilities."""


@dataclass(frozen=True, slots=True)
class Answer:
    version: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Nats, as drawn."""


class Attestation:
    def __init__(
        self, registry: PolicyRegistry, metrics: InferenceMetrics, share: float, draw: random.Random | None = None
    ) -> None:
        """`share` of the answers that can be compared is."""
        self._registry, self._metrics, self._share = registry, metrics, share
        self._draw = draw or random.Random()
        self._task: asyncio.Task[None] | None = None

    def offer(self, settings: SamplingSettings, answer: Answer | None) -> None:
        """Perhaps score it once more, later. Never waits, never raises. None: more than one version gave it."""
        comparable = (settings.temperature, settings.top_p, settings.top_k) == (1.0, 1.0, 0)
        busy = self._task is not None and not self._task.done()
        if answer and comparable and answer.token_ids and not busy and self._draw.random() < self._share:
            self._task = asyncio.create_task(self._attest(answer))

    async def _attest(self, answer: Answer) -> None:
        try:
            async with self._registry.using(str(answer.version)) as lease:
                ids = [*answer.prompt_ids, *answer.token_ids]
                rows = await lease.source.engine.score(ids, lease.source.lora)
        except IterpoError as error:  # the version has left, or the engine has no room: the next answer is as good
            logger.debug("version %d was not attested: %s", answer.version, error)
            return
        again = rows[-len(answer.token_ids) :]
        differences = [b - a for a, b in zip(answer.logprobs, again, strict=True)]
        outside = sum(not in_bounds(difference) for difference in differences)
        self._metrics.attested.labels("outside").inc(outside)
        self._metrics.attested.labels("inside").inc(len(differences) - outside)
        self._metrics.attested_error.set(math.fsum(map(abs, differences)) / len(differences))


def in_bounds(difference: float) -> bool:
    """Of nats; what is not finite lies outside."""
    return math.log(BOUNDS[0]) <= difference <= math.log(BOUNDS[1])
