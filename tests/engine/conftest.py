"""The embedded model and the learner that publishes for all tests of the engine; services start once a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from iterpo.learner.learner import LoraLearner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The embedded model; converted once, kept with the demo's."""
    from iterpo.embedded_model import prepare

    return prepare(ROOT / ".iterpo" / "models")


@pytest.fixture(scope="session")
def learner(base_model: Path) -> LoraLearner:
    from iterpo.algorithms import resolve
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig

    config = RunConfig()
    return LoraLearner(base_model, resolve(config), config)
