"""What the engine holds, read back bit by bit: merges change it, each in its way, and the base comes back as it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iterpo.config import InferenceSettings
from iterpo.policies import manifest
from services.inference.engine import VllmEngine
from tests.engine.served import MAX_MODEL_LEN, publish_random

pytestmark = pytest.mark.engine

RANK = InferenceSettings().max_lora_rank


def test_the_digest_is_of_the_weights_that_answer_and_the_base_is_the_base_after_merges(
    base_model: Path, learner, tmp_path
) -> None:
    """vLLM packs weights on CPUs and leaves empty parameters: a digest of those would be the same for every version."""
    versions = (1, 2)
    for version in versions:
        publish_random(learner, tmp_path, version, seed=version)
    engine = VllmEngine(
        base_model, InferenceSettings(max_model_len=MAX_MODEL_LEN, max_num_seqs=2), lora_slots=0, device="cpu"
    )

    async def digests() -> list[str]:
        found = [await engine.weights_digest()]
        for version in (*versions, 1):
            await engine.load_merged(base_model, manifest.directory(tmp_path, version), RANK)
            found.append(await engine.weights_digest())
        await engine.load_merged(base_model, None, RANK)
        return [*found, await engine.weights_digest()]

    try:
        base, first, second, again, back = asyncio.run(digests())
    finally:
        engine.shutdown()
    assert back == base
    assert again == first
    assert len({base, first, second}) == 3
