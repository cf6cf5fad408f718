"""Built-in verifiers: pure functions over a prompt and a completion that return a reward in [0, 1].

A verifier that cannot tell raises `Abstain`; it never returns 0 for that. Options are keyword arguments.
"""

# ruff: noqa: ARG001 - verifiers have one signature, whether they read the prompt or not

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from iterpo.labeling.exact_number import last_number
from iterpo.labeling.labeler import Abstain
from iterpo.labeling.sentences import ends_on_a_stop, sentence_ends, share_of_commonest, words
from iterpo.types import Completion, FinishReason, Prompt

WARM_WORDS = frozenset(
    {
        "happy",
        "happily",
        "glad",
        "gladly",
        "delighted",
        "pleased",
        "pleasure",
        "enjoy",
        "enjoyed",
        "enjoying",
        "enjoyable",
        "hope",
        "hopefully",
        "love",
        "loved",
        "loves",
        "loving",
        "lovely",
        "wonderful",
        "great",
        "fantastic",
        "amazing",
        "awesome",
        "beautiful",
        "delightful",
        "excellent",
        "welcome",
        "please",
        "thank",
        "thanks",
        "thankful",
        "grateful",
        "friend",
        "friends",
        "friendly",
        "cheer",
        "cheers",
        "cheerful",
        "kind",
        "kindly",
        "kindness",
        "warm",
        "warmly",
        "joy",
        "joyful",
        "smile",
        "smiling",
        "fun",
        "sweet",
        "dear",
        "congratulations",
        "bravo",
        "hello",
        "hi",
    }
)
WARM_PHRASES = ("best wishes", "take care", "good luck", "well done", "my dear")

COMPLETE_SHARE, SHORT_SHARE, FRIENDLY_SHARE = 0.4, 0.3, 0.3
FULL_CREDIT_WORDS, NO_CREDIT_WORDS, FEWEST_WORDS = 20, 40, 3


def one_friendly_sentence(prompt: Prompt, completion: Completion) -> float:
    """How far a text is one short, complete, friendly sentence, in [0, 1]: the demo's stated preference.

    The sum of 0.4 for being exactly one complete sentence (the policy stopped by itself, the text ends in `.`, `!` or
    `?`, holds no newline and no other sentence end), 0.3 for shortness (whole up to 20 words, falling linearly to
    nothing at 40) and 0.3 for friendliness (a warm word of the list above, or an exclamation mark). An empty text and
    a degenerate one (fewer than 3 words, or one word making up more than half) score 0: they are the cheapest ways
    to look short and friendly. Grammar and truth are not judged.
    """
    text = completion.text.strip()
    text_words = words(text)
    if len(text_words) < FEWEST_WORDS or share_of_commonest(text_words) > 0.5:
        return 0.0
    complete = COMPLETE_SHARE * (completion.finish_reason is FinishReason.STOP and _is_one_sentence(text))
    short = SHORT_SHARE * _shortness(len(text_words))
    friendly = FRIENDLY_SHARE * _is_friendly(text, text_words)
    return complete + short + friendly


def word_count(prompt: Prompt, completion: Completion, min_words: int = 1, max_words: int = 50) -> float:
    """1 when the text has between `min_words` and `max_words` words, both included, else 0."""
    return float(min_words <= len(words(completion.text)) <= max_words)


def sentence_count(prompt: Prompt, completion: Completion, min_sentences: int = 1, max_sentences: int = 1) -> float:
    """1 when between `min_sentences` and `max_sentences` sentences end in the text, both included, else 0."""
    return float(min_sentences <= sentence_ends(completion.text) <= max_sentences)


def ends_properly(prompt: Prompt, completion: Completion) -> float:
    """1 when the policy stopped by itself on a full stop, `!`, `?` or `…` (closing quotes may follow), else 0."""
    return float(completion.finish_reason is FinishReason.STOP and ends_on_a_stop(completion.text))


def regex(prompt: Prompt, completion: Completion, pattern: str) -> float:
    """1 when `pattern` (Python's re, searched anywhere, dot matches newlines only with (?s)) is found, else 0."""
    return float(re.search(pattern, completion.text) is not None)


def exact_number(prompt: Prompt, completion: Completion) -> float:
    """1 when the answer's last number equals the reference answer's, else 0; abstains without a reference number."""
    expected = last_number(prompt.reference_answer)
    if expected is None:
        raise Abstain(f"NO_REFERENCE_ANSWER: prompt {prompt.prompt_id!r} names no number to compare with")
    return float(last_number(completion.text) == expected)


VERIFIERS: Mapping[str, Callable[..., float]] = {
    function.__name__: function
    for function in (one_friendly_sentence, word_count, sentence_count, ends_properly, regex, exact_number)
}
"""Name -> function of (prompt, completion, **options)."""


def _is_one_sentence(text: str) -> bool:
    return "\n" not in text and ends_on_a_stop(text) and sentence_ends(text) == 1


def _shortness(word_count: int) -> float:
    credit = (NO_CREDIT_WORDS - word_count) / (NO_CREDIT_WORDS - FULL_CREDIT_WORDS)
    return min(1.0, max(0.0, credit))


def _is_friendly(text: str, text_words: list[str]) -> bool:
    lowered = " ".join(text_words)
    return "!" in text or not WARM_WORDS.isdisjoint(text_words) or any(phrase in lowered for phrase in WARM_PHRASES)
