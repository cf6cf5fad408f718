"""The proof of delivery: log-probs of fixed tokens must tell that exactly the learner's weights arrived.

The learner stores its own log-probs of the probe with the base's weights and with the new ones. Inference measures
both on its engine. Four mean absolute differences, nats a token, decide:

    error  engine new  - learner new     must stay within the noise
    floor  engine base - learner base    what identical weights measure on two engines: the noise
    shift  engine new  - engine base     zero means that nothing arrived
    moved  learner new - learner base    what should have arrived
"""

from __future__ import annotations

from collections.abc import Sequence

from iterpo.types import Proof

TEXTS = (
    ("What should I cook tonight?", "How about a warm vegetable soup with fresh bread? Enjoy it with a friend!"),
    (
        "How do I sleep better?",
        "Go to bed at the same time every day, keep the room dark, and leave the phone outside.",
    ),
    ("Why is the sky blue?", "Sunlight is scattered by the air, and blue light is scattered more than red light is."),
    ("Write a greeting.", "Hello and welcome! I am glad that you are here. 1. Sit down. 2. Have some tea."),
)
"""Prompt and answer: short, long, listed and friendly text, so that most updates show somewhere."""

LIMIT_TOKENS = 96
"""Of each text; together about 280 tokens."""
ABSOLUTE_NOISE = 0.03
"""Nats a token granted above the measured floor. bf16 engines against a bf16 trainer differ by 0.05 to 0.11 with
identical weights, and a few hundredths more or less from one set of weights to the next (DECISIONS.md)."""
RELATIVE_NOISE = 1.6
"""The error may exceed the floor by this factor: it is measured on other weights than the floor was."""


def sequences(tokenizer: object) -> tuple[tuple[int, ...], ...]:
    """Token ids of the probe's chats, each cut to LIMIT_TOKENS."""
    encode = tokenizer.apply_chat_template  # type: ignore[attr-defined]  # any transformers tokenizer
    chats = ([{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in TEXTS)
    return tuple(tuple(encode(chat, return_dict=False)[:LIMIT_TOKENS]) for chat in chats)


def compare(
    learner_base: Sequence[Sequence[float]],
    learner_new: Sequence[Sequence[float]],
    engine_base: Sequence[Sequence[float]],
    engine_new: Sequence[Sequence[float]],
) -> Proof:
    """Judge the four measurements; each is one list of log-probs a probe sequence, all of the same shape."""
    error, floor = distance(engine_new, learner_new), distance(engine_base, learner_base)
    shift, moved = distance(engine_new, engine_base), distance(learner_new, learner_base)
    reason = ""
    if not error < float("inf"):
        reason = "PROBE_NOT_FINITE"
    elif shift == 0:
        reason = "PROBE_UNCHANGED"
    elif error > RELATIVE_NOISE * floor + ABSOLUTE_NOISE:
        reason = "PROBE_DISAGREES"
    elif moved > RELATIVE_NOISE * floor + ABSOLUTE_NOISE and distance(engine_new, learner_base) < error:
        reason = "PROBE_CLOSER_TO_BASE"
    return Proof(not reason, reason, error, floor, shift, sum(len(row) for row in engine_new))


def distance(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference over all tokens; infinity when the shapes differ or a number is not finite."""
    if [len(row) for row in a] != [len(row) for row in b]:
        return float("inf")
    differences = [abs(x - y) for row_a, row_b in zip(a, b, strict=True) for x, y in zip(row_a, row_b, strict=True)]
    mean = sum(differences) / max(1, len(differences))
    return mean if mean == mean else float("inf")
