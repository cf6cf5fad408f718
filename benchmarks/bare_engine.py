"""The same engine without iterpo around it: what serving over gRPC is compared with."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.workload import prompts
from iterpo.config import InferenceSettings
from iterpo.types import SamplingSettings
from services.inference.engine import VllmEngine


class BareEngine:
    """vLLM's AsyncLLM in this process, asked for the same streams."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        chats = [[{"role": m.role, "content": m.content} for m in p.messages] for p in prompts()]
        self._encoded = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
        self._engine = VllmEngine(base, InferenceSettings(), lora_slots=0, device="cpu")

    async def burst(self, count: int, settings: SamplingSettings) -> tuple[float, float]:
        """`count` streams at once, to the last one's end: (tokens/s, median seconds to the first token)."""
        first: list[float] = []

        async def one(number: int) -> int:
            began, total = time.monotonic(), 0
            ids = self._encoded[number % len(self._encoded)]
            async for chunk in self._engine.generate(ids, settings, settings.seed, None, stream=True):
                if not total:
                    first.append(time.monotonic() - began)
                total += len(chunk.token_ids)
            return total

        started = time.monotonic()
        counts = await asyncio.gather(*(one(number) for number in range(count)))
        return sum(counts) / (time.monotonic() - started), statistics.median(first)

    def shutdown(self) -> None:
        self._engine.shutdown()
