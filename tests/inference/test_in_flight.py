"""What becomes of answers under way when another version is promoted: finish with their own, or go on with the new."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from iterpo.errors import Unavailable
from iterpo.types import FinishReason, Message, SamplingSettings
from services.inference.answering import Answering
from services.inference.delivery import Source
from services.inference.engine import Chunk
from services.inference.metrics import InferenceMetrics
from tests.inference.test_openai_door import Letters
from tests.inference.test_registry import YES, serve, started
from tests.policies.builders import BASE, SEQUENCES, publish, shifted

SETTINGS = SamplingSettings(max_tokens=6)
CHAT = [Message("user", "Hi")]
PROMPT = (ord("H"), ord("i"))


class Counting:
    """Says its version's number, token after token, each when `step` is set; says what it was asked."""

    def __init__(self, version: int, asked: list) -> None:
        self.version, self.asked = version, asked
        self.step = asyncio.Semaphore(0)
        self.held_back = False
        self.breaks = False

    async def score(self, token_ids, lora):
        rows = BASE if self.version == 0 else shifted()
        return list(dict(zip(SEQUENCES, rows, strict=True))[tuple(token_ids)])

    async def generate(self, prompt_ids, settings, seed, lora, stream, likeliest=0):
        self.asked.append((self.version, tuple(prompt_ids), settings.max_tokens))
        for number in range(settings.max_tokens):
            await self.step.acquire()
            if self.breaks:
                raise Unavailable("The engine died.", "Wait.")
            last = number == settings.max_tokens - 1
            text = "" if self.held_back else str(self.version)
            yield Chunk(text, (self.version,), (-0.5,), FinishReason.LENGTH if last else None)


class Two:
    """Version 0 serves and version 1 is proved; a client has had two tokens of an answer."""

    def __init__(self, registry, engines, answering, asked) -> None:
        self.registry, self.engines, self.answering, self.asked = registry, engines, answering, asked
        self.got: list[tuple[int, int]] = []

    async def read(self, settings=SETTINGS, policy: str = "") -> None:
        async for version, _, chunk in self.answering.generate(CHAT, settings, policy, "user"):
            self.got += [(version.version, token) for token in chunk.token_ids]


@pytest.fixture
async def made(tmp_path):
    async def build(continues: bool) -> Two:
        registry, delivery = await started(tmp_path)
        asked: list = []
        engines = {version: Counting(version, asked) for version in (0, 1, 2)}
        delivery.source = lambda version: Source(engines[version])
        await registry.load(1, publish(tmp_path / "policies", 1))
        metrics = InferenceMetrics(CollectorRegistry())
        return Two(registry, engines, Answering(registry, Letters(), 64, metrics, continues=continues), asked)

    return build


async def after_two_tokens(two: Two, settings=SETTINGS, policy: str = "") -> asyncio.Task:
    reading = asyncio.create_task(two.read(settings, policy))
    for _ in range(2):
        two.engines[0].step.release()
    async with asyncio.timeout(5):
        while len(two.got) < 2:
            await asyncio.sleep(0)
    await two.registry.promote(1, YES, "r1")
    for engine in two.engines.values():
        for _ in range(10):
            engine.step.release()
    return reading


async def test_by_default_an_answer_ends_with_the_version_that_it_began_with(made) -> None:
    two = await made(continues=False)
    await (await after_two_tokens(two))
    assert two.got == [(0, 0)] * 6
    assert two.asked == [(0, PROMPT, 6)]


async def test_an_answer_goes_on_with_the_promoted_version_which_reads_it_from_the_beginning(made) -> None:
    two = await made(continues=True)
    await (await after_two_tokens(two))
    own = [version for version, _ in two.got].count(0)
    assert two.got == [(0, 0)] * own + [(1, 1)] * (6 - own)
    assert 2 <= own <= 3  # a token may have been on its way
    assert two.asked == [(0, PROMPT, 6), (1, (*PROMPT, *[0] * own), 6 - own)]
    assert [count for _, count in two.registry.listed()] == [0, 0]


@pytest.mark.parametrize("what", ["stop words", "a version by name"])
async def test_some_answers_finish_all_the_same(made, what: str) -> None:
    two = await made(continues=True)
    stops = replace(SETTINGS, stop=("x",)) if what == "stop words" else SETTINGS
    await (await after_two_tokens(two, stops, "" if what == "stop words" else "0"))
    assert two.got == [(0, 0)] * 6


async def test_half_a_character_is_finished_first(made) -> None:
    two = await made(continues=True)
    two.engines[0].held_back = True
    await (await after_two_tokens(two))
    assert two.got == [(0, 0)] * 6


async def test_an_answer_may_be_taken_up_more_than_once(made, tmp_path) -> None:
    two = await made(continues=True)
    reading = asyncio.create_task(two.read())

    async def token(version: int) -> None:
        had = len(two.got)
        two.engines[version].step.release()
        async with asyncio.timeout(5):
            while len(two.got) == had:
                await asyncio.sleep(0)

    await token(0)
    await two.registry.promote(1, YES, "r1")
    await token(0)  # the one that finds out
    await token(1)
    await serve(two.registry, tmp_path, 2)
    await token(1)
    await token(2)
    await token(2)
    await asyncio.wait_for(reading, 5)
    assert [version for version, _ in two.got] == [0, 0, 1, 1, 2, 2]


async def test_an_engine_that_dies_is_a_failed_request(made) -> None:
    two = await made(continues=True)
    two.engines[0].breaks = True
    two.engines[0].step.release()
    with pytest.raises(Unavailable):
        await two.read()
    assert [count for _, count in two.registry.listed()] == [0, 0]
