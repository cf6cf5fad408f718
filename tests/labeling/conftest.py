"""People at a desk of their own, whose labels may be taken back for 100 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labeling.test_tasks import People


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    made = People(tmp_path / "feedback.db", undo_seconds=100.0)
    yield made
    made.desk.close()
    made.database.close()
