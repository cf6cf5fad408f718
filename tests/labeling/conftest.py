"""People at a desk of their own, whose labels may be taken back for 100 seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Place
from tests.labeling.test_tasks import People


@pytest.fixture
def people(place: Place) -> Iterator[People]:
    made = People(place("feedback.db"), undo_seconds=100.0)
    yield made
    made.desk.close()
    made.database.close()
