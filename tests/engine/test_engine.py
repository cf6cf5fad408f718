"""The engine itself: what it holds, read back bit by bit, and what it does not compute twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from iterpo.config import InferenceSettings
from iterpo.policies import manifest
from iterpo.types import SamplingSettings
from services.inference.engine import CPU_BLOCK_TOKENS, VllmEngine, _parameters
from tests.engine.served import MAX_MODEL_LEN, publish_random

pytestmark = pytest.mark.engine

RANK = InferenceSettings().max_lora_rank
Running = tuple[VllmEngine, asyncio.Runner]


@pytest.fixture(scope="module")
def running(base_model: Path) -> Iterator[Running]:
    """An engine, and the one loop that its answers come in."""
    settings = InferenceSettings(max_model_len=MAX_MODEL_LEN, max_num_seqs=2)
    engine = VllmEngine(base_model, settings, lora_slots=0, device="cpu")
    try:
        with asyncio.Runner() as loop:
            yield engine, loop
    finally:
        engine.shutdown()


def test_the_digest_is_of_the_weights_that_answer_and_the_base_is_the_base_after_merges(
    running: Running, base_model: Path, learner, tmp_path
) -> None:
    """vLLM packs weights on CPUs and leaves empty parameters: a digest of those would be the same for every version."""
    engine, loop = running
    versions = (1, 2)
    for version in versions:
        publish_random(learner, tmp_path, version, seed=version)

    async def digests() -> list[str]:
        found = [await engine.weights_digest()]
        for version in (*versions, 1):
            await engine.load_merged(base_model, manifest.directory(tmp_path, version), RANK)
            found.append(await engine.weights_digest())
        await engine.load_merged(base_model, None, RANK)
        return [*found, await engine.weights_digest()]

    base, first, second, again, back = loop.run(digests())
    assert back == base
    assert again == first
    assert len({base, first, second}) == 3


def test_the_beginning_of_a_short_prompt_is_computed_once_for_all_who_share_it(running: Running) -> None:
    """A group's answers, and chats with the same system prompt. vLLM's own blocks, of 128 tokens, would share none."""
    engine, loop = running
    prompt = list(range(100, 100 + CPU_BLOCK_TOKENS + 8))

    async def cached(ids: list[int], seed: int) -> int:
        parameters = _parameters(SamplingSettings(max_tokens=2), seed, stream=False, likeliest=0)
        return [output.num_cached_tokens async for output in engine._outputs(ids, parameters, None)][-1]

    assert loop.run(cached(prompt, 1)) == 0
    assert loop.run(cached(prompt, 2)) == CPU_BLOCK_TOKENS
    assert loop.run(cached([*prompt[:-1], 99], 3)) == CPU_BLOCK_TOKENS
    assert loop.run(cached([99, *prompt[1:]], 4)) == 0
