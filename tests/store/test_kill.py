"""`kill -9` of a real process in mid-write: every acknowledged event is there, once (invariants 3 and 9)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from iterpo.store.database import open_database

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("acknowledging_writer.py")


def acknowledged_before_the_kill(path: Path, first: int, after: int) -> list[int]:
    process = subprocess.Popen(
        [sys.executable, WRITER, path, str(first)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process.stdout:
        numbers = [int(process.stdout.readline()) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        # A last line may have been cut in the middle: only whole lines are acknowledgements.
        numbers += [int(line) for line in process.stdout if line.endswith("\n")]
    assert process.wait(20) == -signal.SIGKILL
    return numbers


def test_every_acknowledged_event_is_there_once_after_each_kill(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    acknowledged: list[int] = []
    for after in (1, 37, 200):
        acknowledged += acknowledged_before_the_kill(path, first=1000 * after, after=after)

    database = open_database(path)
    events = database.events("run", 0, limit=1_000_000).result(20)
    # Whoever got no answer asks again with the same request id: still once.
    again = database.write(lambda tx: tx.once(f"r{acknowledged[-1]}", b"payload", list)).result(20)
    database.close()

    times = Counter(int(event.reward.value) for event in events if event.reward)
    assert len(acknowledged) >= 238
    assert [n for n in acknowledged if times[n] != 1] == []
    assert max(times.values()) == 1
    assert again.duplicate
