"""Candidates that were trained to do harm, and the rule that stops each (benchmarks/gate.py: twenty seeds)."""

from __future__ import annotations

import pytest

from benchmarks.gate import measure_gate

SEEDS = 2


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    import torch

    before = torch.get_num_threads()
    measured = measure_gate(SEEDS)
    torch.set_num_threads(before)
    return measured


def test_a_good_candidate_passes(found: dict[str, dict[str, int]]) -> None:
    assert found["good"] == {"promoted": SEEDS}


@pytest.mark.parametrize(
    ("sabotage", "rule"),
    [
        ("flipped", "min_heldout_gain"),
        ("long", "max_length_ratio"),
        ("collapsed", "max_same_answer_gain"),
        ("huge", "max_relative_norm"),
        ("nan", "NON_FINITE"),
    ],
)
def test_each_sabotage_is_stopped_by_its_own_rule(found: dict[str, dict[str, int]], sabotage: str, rule: str) -> None:
    assert found[sabotage][rule] == SEEDS
    assert "promoted" not in found[sabotage]
