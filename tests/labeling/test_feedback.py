"""From events to preferences, and out to other programs."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from iterpo.labeling.exports import FORMATS, line
from iterpo.labeling.feedback import Feedback, rewards_from_preferences
from iterpo.types import FeedbackEvent, Label, Outcome, Preference, Retraction, Reward
from tests.labeling.builders import group


def prefer(p: float, first: str = "g1-0", second: str = "g1-1", weight: float = 1.0, bad: float = 0.0) -> Preference:
    return Preference("g1", first, second, p, weight, p_both_bad=bad, task_id=f"{first}/{second}")


def label(who: str, first: str = "g1-0", second: str = "g1-1", label_id: str = "l") -> Label:
    return Label(label_id, f"{first}/{second}", "g1", first, second, Outcome.FIRST, who)


def events(*bodies: Any) -> list[FeedbackEvent]:
    numbers = count(1)
    return [
        FeedbackEvent(n, f"e{n}", "run", 0.0, **{type(body).__name__.lower(): body})
        for n, body in zip(numbers, bodies, strict=False)
    ]


def test_a_later_preference_of_a_task_takes_the_place_of_an_earlier_one() -> None:
    feedback = Feedback.of(events(group("a", "b"), prefer(0.9), prefer(0.2)))
    assert [pair.preference.p_first_wins for pair in feedback.label_pairs()] == [0.2]


def test_a_label_taken_back_takes_its_preference_with_it() -> None:
    back = Retraction("l", "g1-0/g1-1", "g1", "ann")
    feedback = Feedback.of(events(group("a", "b"), label("ann"), prefer(0.9), back))
    assert (list(feedback.label_pairs()), feedback.labels) == ([], {})


def test_a_preference_that_nobody_stands_behind_is_no_pair() -> None:
    assert list(Feedback.of(events(group("a", "b"), prefer(0.5, weight=0.0))).label_pairs()) == []


def test_a_machine_does_not_learn_from_pairs_that_only_machines_labelled() -> None:
    given = events(
        group("a", "b", "c", "d"),
        label("reward_model/taste"),
        prefer(0.9),
        label("ann", "g1-2", "g1-3", "l2"),
        prefer(0.8, "g1-2", "g1-3"),
    )
    feedback = Feedback.of(given)
    assert len(list(feedback.label_pairs())) == 2
    assert [pair.first.text for pair in feedback.label_pairs(by_people=True)] == ["c"]


def test_wins_of_a_group_s_pairs_are_its_rewards() -> None:
    """a beats b for sure with weight 2, loses to c with 0.75 and weight 1: (2 * 1 + 1 * 0.25) / 3."""
    pairs = [prefer(1.0, "a", "b", weight=2.0), prefer(0.25, "a", "c")]
    assert rewards_from_preferences(pairs) == pytest.approx({"a": 0.75, "b": 0.0, "c": 0.75})


def test_both_bad_is_a_win_for_neither_and_a_tie_half_a_win_for_both() -> None:
    assert rewards_from_preferences([prefer(0.5)]) == {"g1-0": 0.5, "g1-1": 0.5}
    assert rewards_from_preferences([prefer(0.5, weight=0.0, bad=1.0)]) == {"g1-0": 0.0, "g1-1": 0.0}
    # One vote for the first, one that both are bad: half of the votes are a win of the first.
    assert rewards_from_preferences([prefer(1.0, weight=1.0, bad=0.5)]) == {"g1-0": 0.5, "g1-1": 0.0}
    assert rewards_from_preferences([prefer(0.5, weight=0.0)]) == {}, "a skipped pair says nothing"


def test_rewards_that_differ_make_pairs_and_equal_ones_do_not() -> None:
    feedback = Feedback.of(
        events(
            group("a", "b", "c"),
            Reward("g1-0", 0.5, "rule"),
            Reward("g1-1", 0.5, "rule"),
            Reward("g1-2", 1.0, "rule"),
            Reward("g1-0", 9.0, "model"),  # one labeler's numbers are never compared with another's
        )
    )
    pairs = {(pair.chosen.text, pair.rejected.text) for pair in feedback.reward_pairs()}
    assert pairs == {("c", "a"), ("c", "b")}
    assert [(p.chosen.text, p.rejected.text) for p in feedback.reward_pairs(best_worst_only=True)] in (
        [("c", "a")],
        [("c", "b")],
    )


def rows(name: str, *bodies: Any) -> list[dict]:
    return [json.loads(line(row)) for row in FORMATS[name](events(*bodies))]


def test_trl_rows_are_conversations() -> None:
    assert rows("trl", group("good", "bad"), prefer(0.9)) == [
        {
            "prompt": [{"role": "user", "content": "How are you?"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        }
    ]


def test_ties_are_left_out_of_preferred_pairs() -> None:
    assert rows("trl", group("good", "bad"), prefer(0.5)) == []


def test_kto_rows_are_thumbs() -> None:
    thumbs = [
        (row["completion"][0]["content"], row["label"])
        for row in rows("kto", group("a", "b", "c", "d"), prefer(0.1), prefer(0.5, "g1-2", "g1-3", weight=0.0, bad=1.0))
    ]
    assert thumbs == [("b", True), ("a", False), ("c", False), ("d", False)]
    rewarded = rows("kto", group("a", "b"), Reward("g1-0", 0.5, "rule"), Reward("g1-1", 0.49, "rule"))
    assert [row["label"] for row in rewarded] == [True, False]


def test_rewardbench_rows_say_where_the_preference_came_from() -> None:
    (row,) = rows("rewardbench", group("worse", "better"), Reward("g1-0", 0.1, "rule"), Reward("g1-1", 0.2, "rule"))
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("How are you?", "better", "worse")
    assert (row["chosen_model"], row["subset"]) == ("policy-0", "rewards:rule")


def test_raw_events_keep_everything() -> None:
    first, second = rows("events", group("a"), Reward("g1-0", 0.0, "rule"))
    assert first["group"]["completions"][0]["token_ids"] == [3, 4]
    assert second["reward"] == {"completion_id": "g1-0", "labeler": "rule"}, "protobuf JSON leaves zeros out"
    assert second["cursor"] == "2"
