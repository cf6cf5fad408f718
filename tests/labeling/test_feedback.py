"""From events to preferences, and out to other programs."""

from __future__ import annotations

import json
from itertools import count

import pytest

from iterpo.labeling.exports import FORMATS, line
from iterpo.labeling.feedback import Feedback, preferences_from_labels
from iterpo.types import FeedbackEvent, Group, Label, Outcome, Preference, Reward
from tests.labeling.builders import group


def label(outcome: Outcome, first: str = "g1-0", second: str = "g1-1", who: str = "ann") -> Label:
    return Label("l", "t", "g1", first, second, outcome, who)


def events(*bodies: Group | Reward | Label) -> list[FeedbackEvent]:
    numbers = count(1)
    return [
        FeedbackEvent(n, f"e{n}", "run", 0.0, **{type(body).__name__.lower(): body})
        for n, body in zip(numbers, bodies, strict=False)
    ]


def test_labels_of_a_pair_are_averaged_whichever_way_round_they_were_given() -> None:
    votes = [
        label(Outcome.FIRST),
        label(Outcome.SECOND, "g1-1", "g1-0", "bob"),  # says the same, the other way round
        label(Outcome.TIE, who="cem"),
        label(Outcome.SECOND, who="dan"),
    ]
    # 1, 1, 0.5 and 0: their mean over four votes.
    assert preferences_from_labels(votes) == [Preference("g1", "g1-0", "g1-1", p_first_wins=0.625, weight=4.0)]


@pytest.mark.parametrize("outcome", [Outcome.SKIP, Outcome.BOTH_BAD])
def test_a_skip_and_both_bad_say_nothing_about_the_order(outcome: Outcome) -> None:
    assert preferences_from_labels([label(outcome)]) == []
    assert preferences_from_labels([label(outcome), label(Outcome.FIRST, who="bob")])[0].weight == 1.0


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


def rows(name: str, *bodies: Group | Reward | Label) -> list[dict]:
    return [json.loads(line(row)) for row in FORMATS[name](events(*bodies))]


def test_trl_rows_are_conversations() -> None:
    assert rows("trl", group("good", "bad"), label(Outcome.FIRST)) == [
        {
            "prompt": [{"role": "user", "content": "How are you?"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        }
    ]


def test_ties_are_left_out_of_preferred_pairs() -> None:
    assert rows("trl", group("good", "bad"), label(Outcome.TIE)) == []


def test_kto_rows_are_thumbs() -> None:
    thumbs = [
        (row["completion"][0]["content"], row["label"])
        for row in rows(
            "kto", group("a", "b", "c", "d"), label(Outcome.SECOND), label(Outcome.BOTH_BAD, "g1-2", "g1-3")
        )
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
