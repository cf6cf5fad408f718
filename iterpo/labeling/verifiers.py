"""Built-in verifiers: pure functions over a prompt and a completion that return a reward in [0, 1].

A verifier that cannot tell raises `Abstain`; it never returns 0 for that. Options are keyword arguments.
"""

from __future__ import annotations

from iterpo.labeling.sentences import ends_properly, sentence_ends, share_of_commonest, words
from iterpo.types import Completion, FinishReason, Prompt

WARM_WORDS = frozenset(
    {
        "happy", "happily", "glad", "gladly", "delighted", "pleased", "pleasure", "enjoy", "enjoyed",
        "enjoying", "enjoyable", "hope", "hopefully", "love", "loved", "loves", "loving", "lovely",
        "wonderful", "great", "fantastic", "amazing", "awesome", "beautiful", "delightful", "excellent",
        "welcome", "please", "thank", "thanks", "thankful", "grateful", "friend", "friends", "friendly",
        "cheer", "cheers", "cheerful", "kind", "kindly", "kindness", "warm", "warmly", "joy", "joyful",
        "smile", "smiling", "fun", "sweet", "dear", "congratulations", "bravo", "hello", "hi",
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


def _is_one_sentence(text: str) -> bool:
    return "\n" not in text and ends_properly(text) and sentence_ends(text) == 1


def _shortness(word_count: int) -> float:
    credit = (NO_CREDIT_WORDS - word_count) / (NO_CREDIT_WORDS - FULL_CREDIT_WORDS)
    return min(1.0, max(0.0, credit))


def _is_friendly(text: str, text_words: list[str]) -> bool:
    lowered = " ".join(text_words)
    return "!" in text or not WARM_WORDS.isdisjoint(text_words) or any(phrase in lowered for phrase in WARM_PHRASES)
