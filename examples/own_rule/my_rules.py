"""A rule of your own: two strings in, a number in [0, 1] out. Raise to abstain; never return 0 for "unknown"."""

POLITE = ("please", "thank", "welcome", "glad", "happy to", "of course")


def polite(prompt: str, answer: str) -> float:  # noqa: ARG001  (this rule judges the answer alone)
    """Half for a polite word, half for ending with a question that invites the reader to go on."""
    text = answer.lower()
    return 0.5 * any(word in text for word in POLITE) + 0.5 * text.rstrip().endswith("?")
