"""Several values: which pairs they agree on, and what one of them alone prefers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.run_config import RunConfig
from iterpo.run_data import read_run_data
from iterpo.values import consistency


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ({"a": 1.0, "b": 1.0}, 1.0),
        ({"a": 1.0, "b": -1.0}, 0.0),
        ({"a": -2.0, "b": -2.0}, -1.0),
        ({"a": 1.0, "b": 0.0}, 1 / math.sqrt(2)),
        ({"a": 0.0, "b": 0.0}, 0.0),
    ],
)
def test_consistency_is_the_cosine_with_all_ones(gaps, expected):
    assert consistency(gaps) == pytest.approx(expected)


LINES = [
    '{"id": "agree", "prompt": "q", "chosen": "c", "rejected": "r", "values": {"kind": 0.4, "true": 0.5}}',
    '{"id": "fight", "prompt": "q", "chosen": "c", "rejected": "r", "values": {"kind": 0.4, "true": -0.4}}',
    '{"id": "worse", "prompt": "q", "chosen": "c", "rejected": "r", "values": {"kind": -0.3, "true": -0.3}}',
    '{"id": "even", "prompt": "q", "chosen": "c", "rejected": "r", "values": {"kind": 0.0, "true": 0.5}}',
]


def data(folder: Path, lines: list[str] = LINES, **run):
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return read_run_data(RunConfig(algorithm="dpo", pairs="pairs.jsonl", **run), folder)


def test_without_a_value_and_a_threshold_every_pair_stays_as_it_is(tmp_path):
    found = data(tmp_path)
    assert [e.answers for e in found.examples] == [("c", "r")] * 4
    assert not found.dropped


def test_pairs_whose_values_fight_are_left_out_and_counted(tmp_path):
    found = data(tmp_path, min_consistency=0.9)
    assert [e.prompt.prompt_id for e in found.examples] == ["agree", "worse"]
    assert found.dropped == {"inconsistent": 2}


def test_one_value_turns_a_pair_round_where_it_prefers_the_other_answer(tmp_path):
    found = data(tmp_path, value="true")
    assert {e.prompt.prompt_id: e.answers for e in found.examples} == {
        "agree": ("c", "r"),
        "fight": ("r", "c"),
        "worse": ("r", "c"),
        "even": ("c", "r"),
    }
    assert data(tmp_path, value="kind").dropped == {"indifferent": 1}


@pytest.mark.parametrize(
    ("lines", "run", "says"),
    [
        (LINES, {"value": "funny"}, "has values kind, true, not 'funny'"),
        (['{"prompt": "q", "chosen": "c", "rejected": "r"}'], {"min_consistency": 0.5}, "has values none"),
        (LINES[1:2], {"min_consistency": 0.5}, "None of 1 pairs is left"),
    ],
)
def test_what_the_pairs_do_not_say_is_refused(tmp_path, lines, run, says):
    with pytest.raises(InvalidConfig, match=says) as caught:
        data(tmp_path, lines, **run)
    assert caught.value.reason == "NO_VALUES"


@pytest.mark.parametrize("values", ['"much"', '{"kind": "much"}', '{"kind": true}'])
def test_values_that_are_no_numbers_are_named_with_their_line(tmp_path, values):
    line = f'{{"prompt": "q", "chosen": "c", "rejected": "r", "values": {values}}}'
    with pytest.raises(InvalidInput, match=r"pairs.jsonl:1 has `values`"):
        data(tmp_path, [line])
