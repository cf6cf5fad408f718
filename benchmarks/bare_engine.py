"""The same engine without iterpo around it: what serving over gRPC is compared with.

In a process of its own, so that nothing else runs in the event loop that reads the engine's answers:
`python -m benchmarks.bare_engine MODEL` answers [streams, settings] with [tokens/s, seconds].
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.child import Child, serve_parent
from benchmarks.workload import prompts
from iterpo.config import InferenceSettings
from iterpo.types import SamplingSettings
from services.inference.engine import VllmEngine


class BareEngine:
    """The other side of the pipe."""

    def __init__(self, base: Path) -> None:
        """Blocks until the engine answers."""
        self._child = Child("benchmarks.bare_engine", str(base))
        self._ask(1, SamplingSettings(max_tokens=1))

    async def burst(self, count: int, settings: SamplingSettings) -> tuple[float, float]:
        """`count` streams at once, to the last one's end: (tokens/s, median seconds to the first token)."""
        return await asyncio.to_thread(self._ask, count, settings)

    def shutdown(self) -> None:
        self._child.shutdown()

    def _ask(self, count: int, settings: SamplingSettings) -> tuple[float, float]:
        rate, seconds = self._child.ask([count, asdict(settings)])
        return rate, seconds


def main(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    chats = [[{"role": m.role, "content": m.content} for m in p.messages] for p in prompts()]
    encoded = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
    engine = VllmEngine(base, InferenceSettings(), lora_slots=0, device="cpu")

    with asyncio.Runner() as loop:

        def answer(request: list[Any]) -> list[float]:
            count, fields = request
            settings = SamplingSettings(**fields | {"stop": tuple(fields["stop"])})
            return loop.run(burst(engine, encoded, count, settings))

        try:
            serve_parent(answer)
        finally:
            engine.shutdown()


async def burst(engine: Any, encoded: Sequence[list[int]], count: int, settings: SamplingSettings) -> list[float]:
    first: list[float] = []

    async def one(number: int) -> int:
        began, total = time.monotonic(), 0
        async for chunk in engine.generate(encoded[number % len(encoded)], settings, settings.seed, None, stream=True):
            if not total:
                first.append(time.monotonic() - began)
            total += len(chunk.token_ids)
        return total

    started = time.monotonic()
    counts = await asyncio.gather(*(one(number) for number in range(count)))
    return [sum(counts) / (time.monotonic() - started), statistics.median(first)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
