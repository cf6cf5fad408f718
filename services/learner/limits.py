"""What a run may not exceed, checked before its first iteration: found out in mid-run, it would have cost hours.

The numbers are those of the calls that a run makes: one Sample and one RecordCompletions an iteration, one
ScoreCompletions a candidate (services/inference/answering.py, services/labeling/limits.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from iterpo.algorithms import Algorithm
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.response_sampling import drawn
from iterpo.types import Example, Group

MOST_PROMPTS = 1024
"""Of one iteration, and held out."""
MOST_COMPLETIONS = 4096
"""Of one iteration."""


class Encoder(Protocol):
    def encode(self, example: Example) -> Group: ...


def check_counts(algorithm: Algorithm, heldout: Sequence[Example]) -> None:
    """Raises InvalidConfig (TOO_MANY) for an iteration or a held-out set that no call could carry."""
    prompts, size = algorithm.prompts_per_iteration, drawn(algorithm.response_sampling)
    if prompts > MOST_PROMPTS or prompts * size > MOST_COMPLETIONS:
        raise InvalidConfig(
            f"An iteration of {prompts} prompts with {size} completions each is more than one call carries.",
            f"Lower run.prompts_per_iteration (at most {MOST_PROMPTS}; times run.response_sampling.size at most "
            f"{MOST_COMPLETIONS}).",
            "TOO_MANY",
        )
    if len(heldout) > MOST_PROMPTS:
        raise InvalidConfig(
            f"{len(heldout)} held-out prompts are more than one call carries.",
            f"Keep at most {MOST_PROMPTS} in run.heldout.",
            "TOO_MANY",
        )


def check_lengths(
    encoder: Encoder, examples: Sequence[Example], heldout: Sequence[Example], max_tokens: int, max_model_len: int
) -> None:
    """Raises InvalidInput (CONTEXT_EXCEEDED) for the first prompt that does not fit with its answer: `max_tokens` where
    the model answers, the given answer's own length where there is one. All lengths in tokens."""
    for example in examples:
        for answer in example.answers:
            prompt, given = _lengths(encoder, example, answer)
            _check_fits(example, prompt, given, max_model_len, "Shorten or remove it")
    for example in (*(e for e in examples if not e.answers), *heldout):
        prompt, _ = _lengths(encoder, example, "")
        _check_fits(example, prompt, max_tokens, max_model_len, "Shorten or remove it, lower run.max_tokens")


def _check_fits(example: Example, prompt: int, answer: int, max_model_len: int, fix: str) -> None:
    if prompt + answer > max_model_len:
        raise InvalidInput(
            f"Prompt {example.prompt.prompt_id!r} has {prompt} tokens and its answer up to {answer}, "
            f"more than the context of {max_model_len}.",
            f"{fix}, or raise inference.max_model_len.",
            "CONTEXT_EXCEEDED",
        )


def _lengths(encoder: Encoder, example: Example, answer: str) -> tuple[int, int]:
    """Tokens of the prompt and of the answer, as the learner encodes them."""
    [completion] = encoder.encode(replace(example, answers=(answer,), p_first_wins=None)).completions
    return len(completion.prompt_token_ids), len(completion.token_ids)
