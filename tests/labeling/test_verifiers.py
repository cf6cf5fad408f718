"""The built-in verifiers by hand, and how a user's own function is called."""

from __future__ import annotations

from decimal import Decimal

import pytest

from iterpo.config import LabelerSettings
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.labeling.catalog import find, labelers_of
from iterpo.labeling.exact_number import last_number
from iterpo.labeling.labeler import Abstain
from iterpo.labeling.verifier_labeler import built_in_verifier, own_verifier
from iterpo.labeling.verifiers import VERIFIERS, exact_number
from iterpo.types import FinishReason
from tests.labeling.builders import completion, prompt


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", "42"),
        ("first 7, then 9", "9"),
        ("so 1,234,567.50 in all", "1234567.50"),
        ("that is -5 degrees", "-5"),
        ("that is \u22125 degrees", "-5"),
        ("from 3-5 you take 5", "5"),
        ("7-5", "5"),
        ("$1,000 a week", "1000"),
        ("-$20", "-20"),
        ("$-20", "-20"),
        ("about 12.5%", "12.5"),
        (".5 of it", "0.5"),
        ("Steps: 3+4=7\n#### 7\nChecked in 2 ways.", "7"),
        ("#### none, but 3 before", "3"),
        ("x2 is a name", None),
        ("no numbers here", None),
    ],
)
def test_the_last_number_of_a_text_is_read_as_people_write_it(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("answer", "text", "reward"),
    [("#### 72", "It is 72.0 clips.", 1.0), ("72", "It is 73.", 0.0), ("72", "I do not know.", 0.0)],
)
def test_exact_number_compares_values_not_spellings(answer: str, text: str, reward: float) -> None:
    assert exact_number(prompt(answer=answer), completion(text)) == reward


def test_exact_number_abstains_without_a_reference_answer() -> None:
    with pytest.raises(Abstain, match="NO_REFERENCE_ANSWER"):
        exact_number(prompt(answer=""), completion("It is 72."))


@pytest.mark.parametrize(
    ("verifier", "options", "text", "reward"),
    [
        ("word_count", {"min_words": 2, "max_words": 3}, "one two three", 1.0),
        ("word_count", {"min_words": 2, "max_words": 3}, "one", 0.0),
        ("word_count", {"min_words": 2, "max_words": 3}, "one two three four", 0.0),
        ("sentence_count", {"max_sentences": 2}, "One. Two.", 1.0),
        ("sentence_count", {"max_sentences": 2}, "One. Two. Three.", 0.0),
        ("ends_properly", {}, "It ends here.", 1.0),
        ("ends_properly", {}, "It ends", 0.0),
        ("regex", {"pattern": r"^\w+ is \d+"}, "this is 5", 1.0),
        ("regex", {"pattern": r"^\w+ is \d+"}, "this is five", 0.0),
    ],
)
def test_rules_of_length_and_format(verifier: str, options: dict, text: str, reward: float) -> None:
    assert built_in_verifier("mine", verifier, options).score(prompt(), completion(text)) == reward


def test_a_truncated_answer_does_not_end_properly_even_on_a_full_stop() -> None:
    cut = completion("It ends here.", finish_reason=FinishReason.LENGTH)
    assert built_in_verifier("mine", "ends_properly", {}).score(prompt(), cut) == 0.0


def test_own_functions_get_texts_or_by_annotation_the_whole_objects() -> None:
    texts = own_verifier("a", "tests.labeling.my_rules:starts_with", {"letter": "B"})
    whole = own_verifier("b", "tests.labeling.my_rules:short_for", {})

    assert texts.score(prompt(), completion("Bees")) == 1.0
    assert texts.score(prompt(), completion("Ants")) == 0.0
    assert whole.score(prompt(), completion("two tokens, one message")) == 1.0
    assert texts.description == "1 when the answer starts with a letter."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "verifier", "verifier": "wordcount"}, "does not exist"),
        ({"kind": "verifier", "verifier": "word_count", "options": {"most": 3}}, "min_words, max_words"),
        ({"kind": "verifier", "verifier": "regex"}, "pattern"),
        ({"kind": "verifier", "verifier": "regex", "options": {"pattern": "("}}, "regular expression"),
        ({"kind": "verifier", "function": "no_colon"}, "module:function"),
        ({"kind": "verifier", "function": "tests.labeling.my_rules:nope"}, "cannot be imported"),
        ({"kind": "verifier", "function": "tests.labeling.my_rules:NOT_A_FUNCTION"}, "not a function"),
        ({"kind": "verifier", "function": "tests.labeling.my_rules:starts_with", "options": {"x": 1}}, "letter"),
        ({"kind": "verifier"}, "Set either"),
        ({"kind": "reward_model"}, "without a path"),
    ],
)
def test_a_wrong_labeler_section_is_refused_with_the_fix(settings: dict, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        labelers_of({"mine": LabelerSettings(**settings)})


def test_the_name_people_is_taken() -> None:
    with pytest.raises(InvalidConfig, match="another name"):
        labelers_of({"people": LabelerSettings(kind="verifier", verifier="word_count")})


def test_built_ins_need_no_configuration_and_a_configured_one_takes_their_place() -> None:
    short = LabelerSettings(kind="verifier", verifier="word_count", options={"max_words": 1})
    labelers = labelers_of({"word_count": short})

    assert set(labelers) == set(VERIFIERS) - {"regex"}, "regex has no default pattern"
    assert find(labelers, "word_count").score(prompt(), completion("two words")) == 0.0
    with pytest.raises(InvalidInput, match="people, sentence_count") as unknown:
        find(labelers, "nobody")
    assert unknown.value.reason == "UNKNOWN_LABELER"
