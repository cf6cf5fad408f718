"""The demo's preference, by hand: 0.4 one complete sentence + 0.3 short + 0.3 friendly."""

from __future__ import annotations

import pytest

from iterpo.labeling.sentences import sentence_ends, words
from iterpo.labeling.verifiers import one_friendly_sentence
from iterpo.types import FinishReason
from tests.labeling.builders import completion, prompt

THIRTY_WORDS = " ".join(f"word{index}" for index in range(30))


def reward(text: str, finish_reason: FinishReason = FinishReason.STOP) -> float:
    return one_friendly_sentence(prompt(), completion(text, finish_reason=finish_reason))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I hope you enjoy a sunny walk today.", 1.0),
        ("Water boils at one hundred degrees.", 0.7),
        ("Water boils at one hundred degrees!", 1.0),
        ("Water boils at one hundred degrees", 0.3),
        ("Water boils. It boils hot.", 0.3),
        ("I am glad you came. Please sit down.", 0.6),
        ("I am glad you came,\nplease sit down.", 0.6),
        (f"{THIRTY_WORDS}.", 0.4 + 0.15),
        (f"{THIRTY_WORDS} {' '.join(f'more{i}' for i in range(10))}.", 0.4),
        ("“We love the 3.5 km path, e.g. the one by Dr. Smith.”", 1.0),
    ],
)
def test_the_reward_is_the_sum_of_its_three_shares(text: str, expected: float) -> None:
    assert reward(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "   ", "Great!", "!!! ... ?", "great great great great thanks!", "Love. Love."])
def test_empty_and_degenerate_texts_score_nothing(text: str) -> None:
    assert reward(text) == 0.0


def test_a_truncated_answer_is_not_a_complete_sentence() -> None:
    assert reward("I hope you enjoy your day.", FinishReason.LENGTH) == pytest.approx(0.6)
    assert reward("I hope you enjoy your day.") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("It costs 3.5 euros.", 1),
        ("Mr. Roe met J. Doe.", 1),
        ("Come at 5 p.m.", 1),
        ("Wait... what?", 2),
        ("Go home.The door is open.", 2),
        ("Hello!You there?", 2),
        ("No stop at all", 0),
        ("... and so on", 0),
    ],
)
def test_a_stop_inside_a_number_or_an_abbreviation_ends_no_sentence(text: str, ends: int) -> None:
    assert sentence_ends(text) == ends


def test_words_keep_apostrophes_and_decimals_together() -> None:
    assert words("Don't pay 1,000.50 euros - ever!") == ["don't", "pay", "1,000.50", "euros", "ever"]
