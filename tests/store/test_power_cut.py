"""A power cut: what was acknowledged was synced (FULL); without syncs it would be gone, which shows the test looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from iterpo.store.database import open_database

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
    database = open_database(path)
    there = len(database.events("run", 0, limit=10_000).result(20))
    database.close()
    return int(ended.stdout), there


def test_no_acknowledged_event_is_lost_in_a_power_cut(tmp_path: Path) -> None:
    assert events_after_a_power_cut(tmp_path / "feedback.db", "full") == (200, 200)


def test_without_a_sync_at_every_commit_they_would_be(tmp_path: Path) -> None:
    acknowledged, there = events_after_a_power_cut(tmp_path / "feedback.db", "normal")
    assert there < acknowledged


SEEDS = 500


def labelling_in_power_cuts(folder: Path, seeds: int, synchronous: str) -> dict[str, int]:
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("label_power_cut.py"), folder, str(seeds), synchronous],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    found: dict[str, int] = json.loads(ended.stdout)
    return found


def test_no_acknowledged_label_is_lost_or_doubled_by_a_power_cut_at_any_moment(tmp_path: Path) -> None:
    found = labelling_in_power_cuts(tmp_path, SEEDS, "full")
    assert (found["lost"], found["twice"]) == (0, 0)
    assert found["cut_in_mid_work"] > SEEDS / 2
    assert found["acknowledged"] > 5 * SEEDS


def test_without_a_sync_at_every_commit_acknowledged_labels_are_lost(tmp_path: Path) -> None:
    found = labelling_in_power_cuts(tmp_path, 20, "normal")
    assert found["lost"] > 0
    assert found["twice"] == 0
