"""An engine's processes on a CPU sleep while they wait for each other, and still hear every message."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

MESSAGES = 20
PAIRS = 300


def test_a_reader_that_sleeps_hears_all_messages_in_order_and_takes_no_time_meanwhile() -> None:
    pytest.importorskip("vllm")
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    import services.inference.cpu_waiting  # noqa: F401

    writer = MessageQueue(1, 1)
    handle = writer.export_handle()
    heard: list[int] = []
    seconds: list[float] = []

    def read() -> None:
        reader = MessageQueue.create_from_handle(handle, 0)
        reader.wait_until_ready()
        started = time.thread_time()
        heard.extend(reader.dequeue(timeout=20) for _ in range(MESSAGES))
        seconds.append(time.thread_time() - started)

    thread = threading.Thread(target=read)
    thread.start()
    writer.wait_until_ready()
    for number in range(MESSAGES):
        writer.enqueue(number)
        time.sleep(0.05)
    thread.join(timeout=30)
    del writer
    gc.collect()  # closes its sockets
    assert heard == list(range(MESSAGES))
    assert seconds[0] < 0.25  # of one second; a reader that spins takes all of it on an idle core


def test_no_message_waits_for_a_call_that_was_lost() -> None:
    """Of two messages close upon each other vLLM's socket may drop the second one's call, which was heard five seconds
    later: no third one follows here that would wake the reader."""
    pytest.importorskip("vllm")
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    import services.inference.cpu_waiting  # noqa: F401

    writer = MessageQueue(1, 1)
    handle = writer.export_handle()
    late: list[float] = []

    def read() -> None:
        reader = MessageQueue.create_from_handle(handle, 0)
        reader.wait_until_ready()
        for _ in range(2 * PAIRS):
            late.append(time.monotonic() - reader.dequeue(timeout=20))  # noqa: PERF401  (others look meanwhile)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    writer.wait_until_ready()
    for pair in range(PAIRS):
        for _ in range(2):
            writer.enqueue(time.monotonic(), timeout=20)
            time.sleep(0.0002)
        deadline = time.monotonic() + 20
        while len(late) < 2 * (pair + 1) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(late) == 2 * (pair + 1)
        assert max(late) < 1, f"heard {max(late):.1f} s late"
    thread.join(timeout=30)
    del writer
    gc.collect()


def test_the_schedulers_process_sleeps_because_its_executor_comes_from_this_file() -> None:
    """It is unpickled in a process that has imported nothing of ours."""
    pytest.importorskip("vllm")
    from iterpo.config import InferenceSettings
    from services.inference.engine import arguments

    executor = arguments(Path("model"), InferenceSettings(), 0, "cpu")["distributed_executor_backend"]
    program = (
        "import pickle, sys\n"
        "pickle.loads(sys.stdin.buffer.read())\n"
        "from vllm.distributed.device_communicators import shm_broadcast\n"
        "print(shm_broadcast.SpinCondition.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(executor), capture_output=True, timeout=120, check=True
    )
    assert done.stdout.split()[-1] == b"Asleep"
