"""The geometric mixture of policy and base, token by token, against the distribution written out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from iterpo.learner.mixture import sample_mixture
from tests.learner.test_policy_model import model

PROMPT, EOS = (1, 5, 9), 2


def next_logprobs(made, ids) -> tuple[torch.Tensor, torch.Tensor]:
    """(policy's, base's) log-probs of the next token, from the whole sequence at once, without a cache."""
    with torch.no_grad():
        own = made.peft(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        with made.base():
            base = made.peft(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return own, base


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_mixture_at_every_token(toy_model, share, temperature):
    made = model(toy_model)
    drawn = sample_mixture(made, PROMPT, share, temperature, 6, EOS, seed=3)
    ids = list(PROMPT)
    for token, logprob in zip(drawn.token_ids, drawn.logprobs, strict=True):
        own, base = next_logprobs(made, ids)
        mixed = (((1 - share) * own + share * base) / temperature).log_softmax(-1)
        assert logprob == pytest.approx(float(mixed[token]), abs=1e-10)
        ids.append(token)
    assert not torch.allclose(own, base, atol=1e-3)  # there was something to mix


def test_tokens_are_drawn_as_often_as_the_mixture_says(toy_model):
    made = model(toy_model)
    own, base = next_logprobs(made, list(PROMPT))
    expected = (0.5 * own + 0.5 * base).softmax(-1)
    drawn = Counter(sample_mixture(made, PROMPT, 0.5, 1.0, 1, EOS, seed).token_ids[0] for seed in range(600))
    top = expected.argmax().item()
    assert drawn[top] / 600 == pytest.approx(float(expected[top]), abs=4 * (float(expected[top]) / 600) ** 0.5)
    assert drawn[top] > 20


def test_an_answer_ends_with_the_end_of_sequence_and_a_seed_repeats_it(toy_model):
    made = model(toy_model)
    ended = [d for d in (sample_mixture(made, PROMPT, 0.5, 2.0, 30, EOS, s) for s in range(30)) if EOS in d.token_ids]
    assert ended
    assert all(d.token_ids.index(EOS) == len(d.token_ids) - 1 for d in ended)
    assert sample_mixture(made, PROMPT, 0.5, 1.0, 6, EOS, 7) == sample_mixture(made, PROMPT, 0.5, 1.0, 6, EOS, 7)
    assert sample_mixture(made, PROMPT, 0.5, 1.0, 6, EOS, 7) != sample_mixture(made, PROMPT, 0.5, 1.0, 6, EOS, 8)
