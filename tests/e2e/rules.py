"""A rule that hardly ever ties, so that every group of a short run teaches something."""


def share_of_e(prompt: str, answer: str) -> float:
    """How many of the answer's characters are an e."""
    return answer.count("e") / max(1, len(answer))
