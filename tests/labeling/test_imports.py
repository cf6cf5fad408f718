"""Files of other programs: read whole, bad lines named by number, and back out again as they came in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iterpo.errors import InvalidInput
from iterpo.labeling.imports import FORMATS, read_rows

USER = {"role": "user", "content": "Q?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(format_name: str, *rows: Any) -> list[tuple[list[tuple[str, str]], tuple[str, ...], bool]]:
    found = read_rows([json.dumps(row) for row in rows], format_name)
    return [([(m.role, m.content) for m in row.prompt], row.answers, row.up) for row in found]


ASKED = [("user", "Q?")]
PAIR = (ASKED, ("good", "bad"), True)


@pytest.mark.parametrize(
    ("format_name", "row", "expected"),
    [
        ("trl", {"prompt": "Q?", "chosen": "good", "rejected": "bad"}, PAIR),
        ("trl", {"prompt": [USER], "chosen": [said("good")], "rejected": [said("bad")]}, PAIR),
        ("trl", {"chosen": [USER, said("good")], "rejected": [USER, said("bad")]}, PAIR),
        ("rewardbench", {"id": 1, "prompt": "Q?", "chosen": "good", "rejected": "bad", "subset": "x"}, PAIR),
        ("kto", {"prompt": [USER], "completion": [said("bad")], "label": False}, (ASKED, ("bad",), False)),
        (
            "hh",
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Q?\n\nAssistant: good",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Q?\n\nAssistant: bad",
            },
            ([("user", "Hi"), ("assistant", "Hello"), ("user", "Q?")], ("good", "bad"), True),
        ),
        (
            "ultrafeedback",
            {
                "instruction": "Q?",
                "completions": [
                    {"response": "bad", "overall_score": 2.0},
                    {"response": "good", "overall_score": 9},
                    {"response": "fair", "overall_score": 5.0},
                ],
            },
            PAIR,
        ),
        (
            "ultrafeedback",
            {
                "prompt": "Q?",
                "chosen": [USER, said("good")],
                "rejected": [USER, said("bad")],
                "score_chosen": 8.0,
                "score_rejected": 3.0,
            },
            PAIR,
        ),
    ],
)
def test_each_layout_is_read_as_a_prompt_and_its_answers(format_name: str, row: Any, expected: Any) -> None:
    assert read(format_name, row) == [expected]


BAD = [
    ("trl", {"prompt": "Q?", "chosen": "good"}, "no `rejected`"),
    ("trl", {"prompt": "", "chosen": "a", "rejected": "b"}, "`prompt` with a message without role or text"),
    ("trl", {"prompt": "Q?", "chosen": "same", "rejected": "same"}, "prefers an answer to itself"),
    ("trl", {"chosen": [USER, said("a")], "rejected": [{**USER, "content": "R?"}, said("b")]}, "last answer alone"),
    ("kto", {"prompt": "Q?", "completion": "a", "label": "yes"}, "neither true nor false"),
    ("hh", {"chosen": "Hello", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "no dialogue"),
    ("hh", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: c"}, "differ before"),
    ("ultrafeedback", {"instruction": "Q?", "completions": [{"response": "a", "overall_score": 1}]}, "fewer than two"),
    ("trl", ["no", "object"], "no JSON object"),
]


@pytest.mark.parametrize(("format_name", "row", "says"), BAD)
def test_a_line_that_cannot_be_read_is_named_with_what_is_wrong(format_name: str, row: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        read(format_name, row)
    assert "line 1 " in str(refused.value)
    assert refused.value.reason == "IMPORT_ROWS"


def test_every_format_has_a_bad_line_in_these_tests() -> None:
    assert {name for name, _, _ in BAD} | {"rewardbench"} == set(FORMATS)


def test_all_bad_lines_are_named_empty_lines_count_and_nothing_is_returned() -> None:
    lines = ["", '{"prompt": "Q?", "chosen": "a", "rejected": "b"}', "{", "[]", ""]
    with pytest.raises(InvalidInput, match=r"2 lines are .*line 3 is not JSON.*line 4 is no JSON object"):
        read_rows(lines, "trl")
    with pytest.raises(InvalidInput, match="and 5 more"):
        read_rows(["{"] * 15, "trl")
    with pytest.raises(InvalidInput, match="no rows"):
        read_rows(["", " "], "trl")
