"""`python -m benchmarks.soak`: 200 swaps under 32 streams, in both ways of delivery, on the real engine and model.

Counted: streams that failed, were refused or broke off (none may), answers of versions that were not proved (none may),
and how much the memory of the service's processes grew over the last three quarters of the swaps (5 % at most). The
key-value cache is filled once before: it is reserved when the engine starts, and backed with memory as it is touched.
Exits with 1 when something failed. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from benchmarks.machine import descendants, hardware_key, memory_mib, versions
from benchmarks.published import Copies
from benchmarks.serving import ADAPTERS, RESULTS, make_learner, published, spread
from benchmarks.streams import Streams
from iterpo.config import InferenceSettings
from iterpo.embedded_model import prepare
from iterpo.policies import manifest
from iterpo.types import Message, Prompt, SamplingSettings
from services.inference.engine import VllmEngine
from tests.engine.served import YES, Served, publish_random, running_inference

SWAPS, STREAMS = 200, 32
TALK = SamplingSettings(temperature=1.0, max_tokens=32)
FILL_PROMPTS, FILL_WORDS = 64, 220
"""Together more tokens than the gibibyte of an engine's cache holds (45,000 for the embedded model)."""
GROWTH_ALLOWED = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--swaps", type=int, default=SWAPS, help="of each delivery")
    parser.add_argument("--merges", type=int, default=1000, help="into one engine, before the base is looked at again")
    parser.add_argument("--delivery", choices=["merged", "adapter"], action="append", help="only this one")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions()}
    if not arguments.delivery:
        result["drift"] = drift(base, arguments.merges)
        print(json.dumps(result["drift"]), flush=True)
    for delivery in arguments.delivery or ("merged", "adapter"):
        result[delivery] = soak(base, delivery, arguments.swaps)
        print(json.dumps({delivery: result[delivery]}, indent=1), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"soak-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")
    found = result.get("drift", {"base_is_the_same": True, "versions_differ": True})
    steady = found["base_is_the_same"] and found["versions_differ"]
    return 0 if all(held(result[name]) for name in ("merged", "adapter") if name in result) and steady else 1


def drift(base: Path, merges: int) -> dict[str, Any]:
    """Merge versions into one engine again and again, then the base: its weights' digest is what it was at first."""
    learner = make_learner(base)
    with tempfile.TemporaryDirectory() as folder:
        sources = [manifest.directory(Path(folder), version) for version in range(1, ADAPTERS + 1)]
        for version in range(1, ADAPTERS + 1):
            publish_random(learner, Path(folder), version, seed=version)
        engine = VllmEngine(base, InferenceSettings(), lora_slots=0, device="cpu")
        try:
            return asyncio.run(_drift(engine, base, sources, merges))
        finally:
            engine.shutdown()


async def _drift(engine: VllmEngine, base: Path, sources: list[Path], merges: int) -> dict[str, Any]:
    before, between = await engine.weights_digest(), set()
    started = time.monotonic()
    for number in range(merges):
        await engine.load_merged(base, sources[number % len(sources)], InferenceSettings().max_lora_rank)
        if number < len(sources):
            between.add(await engine.weights_digest())
        if not (number + 1) % 100:
            print(f"{number + 1}/{merges} merges", flush=True)
    seconds = time.monotonic() - started
    await engine.load_merged(base, None, InferenceSettings().max_lora_rank)
    after = await engine.weights_digest()
    return {
        "merges": merges,
        "base_is_the_same": after == before,
        "versions_differ": len(between | {before}) == len(sources) + 1,  # that the digest can tell
        "seconds_a_merge": round(seconds / merges, 3),
    }


def held(found: dict[str, Any]) -> bool:
    return not found["failed"] and not found["unproved"] and found["memory_growth"] < GROWTH_ALLOWED


def soak(base: Path, delivery: str, swaps: int) -> dict[str, Any]:
    learner = make_learner(base)
    with tempfile.TemporaryDirectory() as folder:
        places = {"max_model_len": 1024, "max_num_seqs": STREAMS}
        with running_inference(Path(folder), base, learner, delivery, "bfloat16", **places) as served:
            copies = published(served)
            return asyncio.run(_soak(served, copies, swaps))


async def _soak(served: Served, copies: Copies, swaps: int) -> dict[str, Any]:
    proved = {p.version: p.digest for p in served.registry.versions() if p.proof and p.proof.proved}
    proved[0] = next(p.digest for p in served.registry.versions() if p.version == 0)
    memory, loads, promotions = [], [], []
    await asyncio.to_thread(fill_caches, served)
    started = time.monotonic()
    async with grpc.aio.insecure_channel(served.address) as channel, Streams(channel, STREAMS, TALK) as streams:
        for number in range(swaps):
            version, digest = await asyncio.to_thread(copies.publish)
            begin = time.monotonic()
            policy = await asyncio.to_thread(served.registry.load, version, digest)
            if policy.proof and policy.proof.proved:
                proved[version] = digest
            loads.append(time.monotonic() - begin)
            begin = time.monotonic()
            await asyncio.to_thread(served.registry.promote, version, YES, f"promote {version}")
            promotions.append(time.monotonic() - begin)
            memory.append(_service_memory(served))
            if not (number + 1) % 10:
                print(f"{number + 1}/{swaps} swaps, {streams.met.requests} requests, {memory[-1]:.0f} MiB", flush=True)
    met = streams.met
    unproved = [v for v, digests in met.digests.items() if digests != {proved.get(v)}]
    return {
        "swaps": swaps,
        "streams": STREAMS,
        "requests": met.requests,
        "versions_that_answered": len(met.versions),
        "adapters": ADAPTERS,
        "failed": len(met.failed),
        "failures": met.failed[:5],
        "unproved": len(unproved),
        "memory_mib": [round(memory[i]) for i in range(0, swaps, max(1, swaps // 20))],
        "memory_growth": round(growth(memory), 4),
        "load_and_proof_ms": spread(loads),
        "promotion_ms": spread(promotions),
        "seconds": round(time.monotonic() - started, 1),
    }


def fill_caches(served: Served) -> None:
    """Every block of every engine: the serving version's and, in merged delivery, the base's or the previous one's."""
    long = [
        Prompt(f"p{n}", (Message("user", " ".join(f"w{(n * 7919 + i) % 997}" for i in range(FILL_WORDS))),))
        for n in range(FILL_PROMPTS)
    ]
    for policy in ("serving", "previous"):
        served.inference.sample(long, 1, SamplingSettings(max_tokens=1), policy)


def growth(memory: list[float]) -> float:
    """From the median of the ten samples around the first quarter's end to that of the last ten, as a share."""
    quarter = len(memory) // 4
    before, after = statistics.median(memory[max(0, quarter - 5) : quarter + 5]), statistics.median(memory[-10:])
    return after / before - 1


def _service_memory(served: Served) -> float:
    pid = served.services.pid("inference")
    return sum(memory_mib(member) for member in (pid, *descendants(pid)))


if __name__ == "__main__":
    sys.exit(main())
