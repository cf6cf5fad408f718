"""A power cut: what was acknowledged was synced (FULL); without syncs it would be gone, which shows the test looks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from iterpo.store.database import FeedbackDatabase

ROOT = Path(__file__).parents[2]


def events_after_a_power_cut(path: Path, synchronous: str) -> tuple[int, int]:
    """(acknowledged before, there afterwards)."""
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("power_cut.py"), path, synchronous],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    database = FeedbackDatabase(path)
    there = len(database.events("run", 0, limit=10_000).result(20))
    database.close()
    return int(ended.stdout), there


def test_no_acknowledged_event_is_lost_in_a_power_cut(tmp_path: Path) -> None:
    assert events_after_a_power_cut(tmp_path / "feedback.db", "full") == (200, 200)


def test_without_a_sync_at_every_commit_they_would_be(tmp_path: Path) -> None:
    acknowledged, there = events_after_a_power_cut(tmp_path / "feedback.db", "normal")
    assert there < acknowledged
