"""The processes of a CPU engine sleep while they wait for each other.

vLLM's spin for a second after every message, which is nothing where a GPU works. On a CPU the waiting one takes time
from the working one, and so from all threads of a product, which wait for the slowest: a batch took 5.9 s instead of
4.9; after it, the learner had to share a core for a second.

Importing this file makes queues that are made later wait so. The worker's process imports it by
services/inference/worker.py, the scheduler's by unpickling `CpuExecutor`.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.distributed.device_communicators import shm_broadcast
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

BUSY_SECONDS = 1.0
"""After a message, in which others may come close upon each other: as long as vLLM's spin."""
LOOK_MS = 2
"""What a lost call costs. To look takes 44 to 51 us (beside other work): 20 ms of that second."""


class Asleep(shm_broadcast.SpinCondition):  # type: ignore[misc]  # vLLM is not typed
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more | {"busy_loop_s": 0})

    def wait(self, timeout_ms: int | None = None) -> None:
        """Of two messages within a millisecond the second one may wake nobody: the writer's socket holds one call, and
        drops what comes before it knows that it was heard. vLLM looks at the queue itself after five seconds; so long
        an answer stood still. Whoever has just read looks soon."""
        if time.monotonic() < self.last_read + BUSY_SECONDS:
            timeout_ms = LOOK_MS if timeout_ms is None else min(timeout_ms, LOOK_MS)
        super().wait(timeout_ms)


shm_broadcast.SpinCondition = Asleep


class CpuExecutor(MultiprocExecutor):  # type: ignore[misc]
    """vLLM's, in a process whose queues are these."""
