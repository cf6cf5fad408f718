"""Live answers are scored once more: what agrees is inside, what does not is outside, and nobody waits for it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from iterpo.types import SamplingSettings
from services.inference.attestation import Answer, Attestation, in_bounds
from services.inference.delivery import Source
from services.inference.metrics import InferenceMetrics
from tests.inference.test_registry import started

PROMPT, TOKENS = (5, 6), (7, 8, 9)
DRAWN = (-1.0, -2.0, -0.5)
FREE = SamplingSettings()


@dataclass
class Scorer:
    again: list[float]
    asked: list[Any] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def score(self, ids, lora):
        self.asked.append(list(ids))
        if self.hold is not None:
            await self.hold.wait()
        return [-9.0] * (len(PROMPT) - 1) + self.again


@pytest.fixture
async def attest(tmp_path):
    registry, delivery = await started(tmp_path)

    async def run(again: list[float], settings: SamplingSettings = FREE, share: float = 1.0, version: int = 0):
        scorer = Scorer(again)
        delivery.source = lambda _version: Source(scorer)
        made = Attestation(registry, InferenceMetrics(CollectorRegistry()), share, random.Random(0))
        made.offer(settings, Answer(version, PROMPT, TOKENS, DRAWN))
        if made._task is not None:
            await made._task
        counted = {ratio: made._metrics.attested.labels(ratio)._value.get() for ratio in ("inside", "outside")}
        return scorer, counted, made

    return run


async def test_the_answer_s_own_tokens_are_compared(attest) -> None:
    scorer, counted, made = await attest([-1.0, -2.05, -0.5])
    assert scorer.asked == [[5, 6, 7, 8, 9]]
    assert counted == {"inside": 3.0, "outside": 0.0}
    assert made._metrics.attested_error._value.get() == pytest.approx(0.05 / 3)


async def test_what_differs_by_more_than_a_tenth_lies_outside(attest) -> None:
    """exp(0.2) = 1.22 and exp(-0.2) = 0.82."""
    _, counted, _ = await attest([-0.8, -2.2, -0.5])
    assert counted == {"inside": 1.0, "outside": 2.0}
    assert not in_bounds(float("nan"))
    assert (await attest([float("nan"), -2.0, -0.5]))[1]["outside"] == 1.0


@pytest.mark.parametrize(
    "settings", [SamplingSettings(temperature=0.7), SamplingSettings(top_p=0.9), SamplingSettings(top_k=5)]
)
async def test_what_was_drawn_otherwise_cannot_be_compared(attest, settings: SamplingSettings) -> None:
    assert not (await attest(list(DRAWN), settings))[0].asked


async def test_none_is_attested_when_none_is_wanted_or_when_its_version_is_gone(attest) -> None:
    assert not (await attest(list(DRAWN), share=0.0))[0].asked
    scorer, counted, _ = await attest(list(DRAWN), version=99)
    assert (scorer.asked, counted) == ([], {"inside": 0.0, "outside": 0.0})


async def test_one_at_a_time(tmp_path) -> None:
    registry, delivery = await started(tmp_path)
    scorer = Scorer(list(DRAWN), hold=asyncio.Event())
    delivery.source = lambda _version: Source(scorer)
    made = Attestation(registry, InferenceMetrics(CollectorRegistry()), 1.0)
    for _ in range(5):
        made.offer(FREE, Answer(0, PROMPT, TOKENS, DRAWN))
        await asyncio.sleep(0)
    assert len(scorer.asked) == 1
    scorer.hold.set()
    await made._task
    made.offer(FREE, Answer(0, PROMPT, TOKENS, DRAWN))
    await made._task
    assert len(scorer.asked) == 2
