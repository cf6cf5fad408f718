"""`python -m benchmarks.serving`: what serving and swapping cost, in one run on the embedded model; no learner runs.

For either way of delivery, with the engine's own defaults and 64 streams of 48 tokens:
    tokens/s of a trained version and of the base beside it, in turn
    from "the version lies on disk" to its first token (digest, load, proof, promotion, a user's request), under 32
    streams; its parts; what the 32 streams lost meanwhile, in steps of decoding
    a rollback: the call, and the first token of the previous version
and once: tokens/s and time to first token through `Generate` against the same engine without iterpo around it, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.bare_engine import BareEngine
from benchmarks.machine import hardware_key, versions
from benchmarks.published import Copies
from benchmarks.streams import Streams, burst, in_turn, quantile
from benchmarks.workload import ROUNDS, SETTINGS, prompts
from iterpo.embedded_model import prepare
from iterpo.types import SamplingSettings
from iterpo.v1 import inference_pb2_grpc
from tests.engine.served import YES, Served, running_inference

RESULTS = Path(__file__).parent / "results"
DELIVERIES = ("merged", "adapter")
STREAMS, BUSY, SWAPS, ADAPTERS = 64, 32, 30, 4
TALK = SamplingSettings(temperature=1.0, max_tokens=64)
FIRST = SamplingSettings(temperature=0.0, max_tokens=1)
QUIET_SECONDS = 8.0
"""Between two swaps: the answers of the version before the last are over by then, as they are in a run that swaps every
minute. A merged load would wait for them."""
RATE_SECONDS = 3.0
"""Before a swap: the rate of decoding without one."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--swaps", type=int, default=SWAPS, help="timed swaps of each delivery")
    parser.add_argument("--delivery", choices=DELIVERIES, action="append", help="only this one")
    arguments = parser.parse_args(argv)
    base = prepare(arguments.home / "models", print)
    started = time.monotonic()
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions()}
    for delivery in arguments.delivery or DELIVERIES:
        print(f"{delivery} delivery ...", flush=True)
        result[delivery] = measure(base, delivery, arguments.swaps, overhead=delivery == "merged")
        print(json.dumps(result[delivery], indent=1), flush=True)
    result["seconds"] = round(time.monotonic() - started, 1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"serving-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def measure(base: Path, delivery: str, swaps: int, overhead: bool) -> dict[str, Any]:
    learner = make_learner(base)
    with tempfile.TemporaryDirectory() as folder:
        places = {"max_model_len": 1024, "max_num_seqs": STREAMS}
        with running_inference(Path(folder), base, learner, delivery, "bfloat16", **places) as served:
            copies = published(served)
            return asyncio.run(_measure(served, copies, base if overhead else None, swaps))


def make_learner(base: Path) -> Any:
    from iterpo.algorithms import resolve
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig

    config = RunConfig()
    return LoraLearner(base, resolve(config), config)


def published(served: Served) -> Copies:
    """A few different adapters, the last one serving."""
    made = [served.serve(seed, std=0.01) for seed in range(ADAPTERS)]
    return Copies(served.policies, made, max(made) + 1)


async def _measure(served: Served, copies: Copies, base: Path | None, swaps: int) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        found: dict[str, Any] = {}
        # Where the previous version took the base's place: a sample from it brings the base back.
        await asyncio.to_thread(served.inference.sample, prompts()[:1], 1, FIRST, "base")
        if base is not None:
            found["overhead"] = await overhead(stub, base)
        found["speed"] = await speed(stub)
        found["swap"] = await swapping(served, channel, stub, copies, swaps)
        found["rollback"] = await rollback(served, stub)
        return found


async def overhead(stub: Any, base: Path) -> dict[str, Any]:
    """Through gRPC against the engine alone, both serving the base."""
    bare = await asyncio.to_thread(BareEngine, base)
    try:

        async def through() -> tuple[float, float]:
            rate, met = await burst(stub, STREAMS, SETTINGS, "base")
            return rate, statistics.median(met.first_token_seconds)

        busy = await in_turn(ROUNDS, {"grpc": through, "bare": lambda: bare.burst(STREAMS, SETTINGS)})

        async def alone() -> float:
            return (await burst(stub, 1, FIRST, "base"))[1].first_token_seconds[0]

        async def bare_alone() -> float:
            return (await bare.burst(1, FIRST))[1]

        idle = await in_turn(10, {"grpc": alone, "bare": bare_alone}, pause_seconds=2.0)
    finally:
        bare.shutdown()
    rates = {side: [rate for rate, _ in rounds] for side, rounds in busy.items()}
    first = {side: 1000 * statistics.median(seconds) for side, seconds in idle.items()}
    burst_first = {side: 1000 * statistics.median(s for _, s in rounds) for side, rounds in busy.items()}
    return {
        "tokens_per_second": {side: round(statistics.median(values), 1) for side, values in rates.items()},
        "grpc_over_bare": round(statistics.median(rates["grpc"]) / statistics.median(rates["bare"]), 3),
        "grpc_over_bare_by_round": [round(a / b, 3) for a, b in zip(rates["grpc"], rates["bare"], strict=True)],
        "first_token_ms_alone": {side: round(value, 1) for side, value in first.items()},
        "first_token_ms_of_64": {side: round(value, 1) for side, value in burst_first.items()},
        "first_token_ms_allowed": round(first["bare"] * 1.05 + 5, 1),
    }


async def speed(stub: Any) -> dict[str, Any]:
    """The serving version and the base, which stands in the other engine or in no slot."""

    def side(policy: str) -> Any:
        async def run() -> float:
            return (await burst(stub, STREAMS, SETTINGS, policy))[0]

        return run

    rates = await in_turn(ROUNDS, {"version": side("serving"), "base": side("base")})
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "tokens_per_second": {name: round(value, 1) for name, value in middle.items()},
        "version_over_base": round(middle["version"] / middle["base"], 3),
        "by_round": [round(a / b, 3) for a, b in zip(rates["version"], rates["base"], strict=True)],
    }


async def swapping(served: Served, channel: grpc.aio.Channel, stub: Any, copies: Copies, swaps: int) -> dict[str, Any]:
    """From a version on disk to its first token, under BUSY streams."""
    parts: dict[str, list[float]] = {"load": [], "promote": [], "first_token": [], "whole": []}
    stalls = []
    async with Streams(channel, BUSY, TALK) as streams:
        await asyncio.sleep(QUIET_SECONDS)
        for _ in range(swaps):
            version, digest = await asyncio.to_thread(copies.publish)
            await asyncio.sleep(QUIET_SECONDS)
            start = time.monotonic()
            await asyncio.to_thread(served.registry.load, version, digest)
            loaded = time.monotonic()
            await asyncio.to_thread(served.registry.promote, version, YES, f"promote {version}")
            promoted = time.monotonic()
            _, met = await burst(stub, 1, FIRST)
            end = time.monotonic()
            if set(met.versions) != {version}:
                raise RuntimeError(f"version {version} was promoted, and {set(met.versions)} answered")
            for name, seconds in {
                "load": loaded - start,
                "promote": promoted - loaded,
                "first_token": end - promoted,
                "whole": end - start,
            }.items():
                parts[name].append(seconds)
            rate = streams.met.tokens_between(start - RATE_SECONDS, start) / RATE_SECONDS
            lost = rate * (end - start) - streams.met.tokens_between(start, end)
            stalls.append(lost / BUSY)
        alive = streams.met
    return {
        "streams": BUSY,
        "swaps": swaps,
        "requests": alive.requests,
        "failed": len(alive.failed),
        "publish_to_first_token_ms": spread(parts["whole"]),
        "of_which_load_and_proof_ms": spread(parts["load"]),
        "of_which_promotion_ms": spread(parts["promote"]),
        "of_which_first_token_ms": spread(parts["first_token"]),
        "steps_of_decoding_lost": {"p50": round(quantile(stalls, 0.5), 2), "p99": round(quantile(stalls, 0.99), 2)},
    }


async def rollback(served: Served, stub: Any) -> dict[str, Any]:
    """The learner is not running in this benchmark at all."""
    calls, tokens = [], []
    for number in range(10):
        before = served.serving
        start = time.monotonic()
        back = await asyncio.to_thread(served.registry.rollback, f"benchmark {number}")
        called = time.monotonic()
        _, met = await burst(stub, 1, FIRST)
        tokens.append(time.monotonic() - start)
        calls.append(called - start)
        if set(met.versions) != {back.version} or back.version == before:
            raise RuntimeError(f"after a rollback from {before} to {back.version}, {set(met.versions)} answered")
    return {"call_ms": spread(calls), "call_to_first_token_ms": spread(tokens)}


def spread(seconds: list[float]) -> dict[str, float]:
    return {name: round(1000 * quantile(seconds, share), 1) for name, share in {"p50": 0.5, "p99": 0.99}.items()}


if __name__ == "__main__":
    main()
