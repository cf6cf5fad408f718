"""`SpreadGenerator`: a draw shared out over the inference service and the replicas that follow it.

Prompts wait in one line and each service takes the next one whenever it has room, so that a faster one does more; a
prompt's answers are drawn together, by one service, which computes the prompt once. Seeds follow from a prompt's place
in the whole draw: how many services there are, and which drew what, changes no seed. A replica takes part once it has
proved the very version that is asked for, so replicas join and leave while a run goes on; what one that went away had
in hand is drawn by the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.errors import IterpoError
from iterpo.types import BASE_VERSION, RUN, Completion, Prompt, SamplingSettings
from iterpo.v1 import policy_pb2
from iterpo.v1.inference_pb2 import GetModelResponse

logger = logging.getLogger(__name__)

IN_FLIGHT = 64
"""Completions that one service draws at the same time at most: what its engine holds (inference.max_num_seqs)."""
AWAY_SECONDS = 10.0
"""How long a replica that failed is left alone."""


@dataclass
class _Draw:
    """What is left of one draw, shared by the threads that work on it."""

    waiting: deque[int]
    """Places of prompts."""
    drawn: dict[int, list[Completion]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int | None:
        with self.lock:
            return self.waiting.popleft() if self.waiting else None

    def give_back(self, place: int) -> None:
        with self.lock:
            self.waiting.appendleft(place)


class SpreadGenerator:
    """Implements ports.Generator. `connect`: a client of the inference service at an address."""

    def __init__(
        self,
        primary: InferenceClient,
        policies: PolicyClient,
        connect: Callable[[str], InferenceClient],
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._primary, self._policies, self._connect = primary, policies, connect
        self._in_flight = in_flight
        self._clients: dict[str, InferenceClient] = {}
        self._away: dict[str, float] = {}
        """Address -> when it may be asked again."""

    def sample(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, policy: str = "serving"
    ) -> list[list[Completion]]:
        """Raises what the inference service raised, when nobody else drew its part."""
        version, addresses = self._who(policy)
        if not addresses or len(prompts) < 2:
            return self._primary.sample(prompts, n, settings, policy)
        draw = _Draw(deque(range(len(prompts))))

        def drawn(client: InferenceClient, place: int) -> list[Completion]:
            # By its number: a swap in the middle must not make it a draw of two versions.
            return client.sample(prompts[place : place + 1], n, settings, str(version), place)[0]

        def work(address: str) -> None:
            client = self._client(address)
            while (place := draw.take()) is not None:
                try:
                    draw.drawn[place] = drawn(client, place)
                except IterpoError as error:
                    draw.give_back(place)
                    self._let_go(address, error)
                    return

        services = ["", *addresses]
        # No more than a fair share at once: who is asked first must not take all of a small draw.
        each = min(max(1, self._in_flight // n), -(-len(prompts) // len(services)))
        with ThreadPoolExecutor(each * len(services), "iterpo-spread") as threads:
            for done in [threads.submit(work, address) for _ in range(each) for address in services]:
                done.result()
        while (place := draw.take()) is not None:  # a replica failed when the others were through
            draw.drawn[place] = drawn(self._primary, place)
        return [draw.drawn[place] for place in range(len(prompts))]

    def model(self) -> GetModelResponse:
        return self._primary.model()

    def score(self, sequences: list[tuple[int, ...]], policy: str = "serving") -> list[list[float]]:
        return self._primary.score(sequences, policy)

    def _who(self, policy: str) -> tuple[int, list[str]]:
        """The version that is meant, and the replicas that have proved it; none for an alias that only the inference
        service itself can resolve (a candidate, the one before)."""
        listed = self._policies.listed(1)
        version = _version(policy, listed)
        if version is None:
            return BASE_VERSION, []
        now = time.monotonic()
        addresses = [
            replica.address
            for replica in listed.replicas
            if replica.connected and replica.address and version in replica.proved
        ]
        return version, [a for a in dict.fromkeys(addresses) if self._away.get(a, 0.0) <= now]

    def _client(self, address: str) -> InferenceClient:
        if not address:
            return self._primary
        if address not in self._clients:
            self._clients[address] = self._connect(address)
        return self._clients[address]

    def _let_go(self, address: str, error: IterpoError) -> None:
        if not address:
            logger.warning("inference failed a part of a draw, the replicas go on: %s", error.message)
            return
        self._away[address] = time.monotonic() + AWAY_SECONDS
        self._clients.pop(address, None)
        logger.warning("replica %s failed a part of a draw, the others go on: %s", address, error.message)


def _version(policy: str, listed: policy_pb2.ListPoliciesResponse) -> int | None:
    if policy.isdecimal():
        return int(policy)
    if policy.startswith(RUN):
        return listed.run_heads.get(policy.removeprefix(RUN))
    return {"serving": listed.serving_version, "base": BASE_VERSION}.get(policy)
