"""Many users at once: asynchronous Generate streams, each followed by the next, and what every one of them met."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from benchmarks.workload import prompts
from iterpo import wire
from iterpo.types import SamplingSettings
from iterpo.v1 import inference_pb2 as pb
from iterpo.v1 import inference_pb2_grpc, types_pb2

ENDED = (types_pb2.FINISH_REASON_STOP, types_pb2.FINISH_REASON_LENGTH)
TIMEOUT_SECONDS = 300.0


@dataclass
class Met:
    """What the streams met."""

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    """One line for each stream that failed, was refused, broke off, or had more than one version."""
    versions: Counter[int] = field(default_factory=Counter)
    """Answers by the version that gave them."""
    digests: dict[int, set[str]] = field(default_factory=dict)
    tokens: list[tuple[float, int]] = field(default_factory=list)
    """(when, how many) of every message, seconds of the monotonic clock."""
    first_token_seconds: list[float] = field(default_factory=list)

    def tokens_between(self, start: float, end: float) -> int:
        return sum(count for when, count in self.tokens if start <= when < end)


class Streams:
    """`count` users who ask again as soon as they are answered. An asynchronous context manager."""

    def __init__(self, channel: grpc.aio.Channel, count: int, settings: SamplingSettings, policy: str = "") -> None:
        self.met = Met()
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self._count, self._settings, self._policy = count, settings, policy
        self._going = False

    async def __aenter__(self) -> Streams:
        self._going = True
        self._tasks = [asyncio.create_task(self._user(i)) for i in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def _user(self, number: int) -> None:
        asked = 0
        while self._going:
            await ask(self._stub, self.met, number + asked, self._settings, self._policy)
            asked += 1


async def ask(stub: Any, met: Met, number: int, settings: SamplingSettings, policy: str) -> None:
    """One stream from its beginning to its end, noted in `met`."""
    asked = prompts()
    request = pb.GenerateRequest(
        messages=[wire.message_to_proto(m) for m in asked[number % len(asked)].messages],
        sampling=wire.sampling_to_proto(settings),
        policy=policy,
    )
    started, met.requests = time.monotonic(), met.requests + 1
    versions, last, total = set(), None, 0
    try:
        async for last in stub.Generate(request, timeout=TIMEOUT_SECONDS):
            if not total:
                met.first_token_seconds.append(time.monotonic() - started)
            total += len(last.token_ids)
            met.tokens.append((time.monotonic(), len(last.token_ids)))
            versions.add(last.policy_version)
            met.digests.setdefault(last.policy_version, set()).add(last.policy_digest)
    except grpc.RpcError as error:
        met.failed.append(f"{error.code()}: {error.details()}")  # type: ignore[attr-defined]  # grpc.aio's errors
        return
    if last is None or last.finish_reason not in ENDED or last.completion_tokens != total or len(versions) != 1:
        met.failed.append(f"ended badly: versions {sorted(versions)}, {total} tokens")
    met.versions.update(versions)


async def burst(stub: Any, count: int, settings: SamplingSettings, policy: str = "") -> tuple[float, Met]:
    """`count` streams at once, to the last one's end: (tokens/s, what they met)."""
    met, started = Met(), time.monotonic()
    await asyncio.gather(*(ask(stub, met, number, settings, policy) for number in range(count)))
    if met.failed:
        raise RuntimeError(f"a stream failed: {met.failed[0]}")
    return sum(n for _, n in met.tokens) / (time.monotonic() - started), met


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, int(-(-share * len(ordered) // 1)) - 1))]


async def in_turn(rounds: int, sides: dict[str, Callable[[], Any]], pause_seconds: float = 0.0) -> dict[str, list[Any]]:
    """Every side once a round, so that what the machine does meanwhile meets them all; the first round warms up.

    `pause_seconds` before each: a bare engine of vLLM that has just answered spins for a second, and takes the cores of
    the other.
    """
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            await asyncio.sleep(pause_seconds)
            result = await side()
            if number:
                found[name].append(result)
    return found
