"""What the examples promise holds: their settings load, their data reads, their rules run."""

from __future__ import annotations

from pathlib import Path

import pytest

from iterpo.algorithms import resolve
from iterpo.config import load
from iterpo.labeling.catalog import labelers_of
from iterpo.run_data import read_run_data
from iterpo.types import Completion, FinishReason

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/iterpo.toml")), ids=lambda p: p.parent.name)
def test_an_examples_settings_and_data_are_valid(path):
    settings = load(path)
    examples, heldout, _ = read_run_data(settings.run, path.parent)
    assert resolve(settings.run).name == settings.run.algorithm
    assert not {e.prompt.prompt_id for e in examples} & {e.prompt.prompt_id for e in heldout}


def test_the_own_rule_scores_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_rule"))
    settings = load(EXAMPLES / "own_rule" / "iterpo.toml")
    polite = labelers_of(settings.labelers)["polite"]
    prompt = read_run_data(settings.run, EXAMPLES / "own_rule")[0][0].prompt

    def score(text: str) -> float:
        return polite.score(prompt, Completion("c", "p", "g", text, (), (), (), FinishReason.STOP, 0, ""))

    assert [score("No."), score("Of course."), score("Of course, what do you like?")] == [0.0, 0.5, 1.0]
