"""The same engine without iterpo around it: what serving over gRPC is compared with."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.workload import ROUNDS, SAMPLES, SETTINGS, prompts
from iterpo.config import InferenceSettings
from services.inference.answering import sample_seed
from services.inference.engine import VllmEngine


def bare_tokens_per_second(base: Path) -> dict[str, float]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    chats = [[{"role": m.role, "content": m.content} for m in p.messages] for p in prompts()]
    encoded = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
    started = time.monotonic()
    engine = VllmEngine(base, InferenceSettings(), lora_slots=0, device="cpu")
    seconds = time.monotonic() - started
    try:
        rates = asyncio.run(_rounds(engine, encoded))
    finally:
        engine.shutdown()
    return {
        "start_seconds": round(seconds, 1),
        "tokens_per_second_p50": round(statistics.median(rates), 1),
        "tokens_per_second_min": round(min(rates), 1),
        "tokens_per_second_max": round(max(rates), 1),
    }


async def _rounds(engine: VllmEngine, encoded: list[list[int]]) -> list[float]:
    async def one(p: int, i: int) -> int:
        seed, count = sample_seed(SETTINGS.seed or 0, p, i), 0
        async for chunk in engine.generate(encoded[p], SETTINGS, seed, None, stream=False):
            count += len(chunk.token_ids)
        return count

    rates = []
    for number in range(ROUNDS + 1):
        started = time.monotonic()
        counts = await asyncio.gather(*(one(p, i) for p in range(len(encoded)) for i in range(SAMPLES)))
        if number:  # the first round warms up
            rates.append(sum(counts) / (time.monotonic() - started))
    return rates
