"""The head in chunks: log-probs, and slopes that no coefficient enters, equal autograd's through the whole logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from iterpo.errors import InvalidConfig
from iterpo.learner import head as module
from iterpo.learner.head import Head, refuse_other_heads

EXACT = 1e-13


@pytest.fixture(params=[3, 1000], ids=["chunks", "whole"])
def head(request, monkeypatch) -> Head:
    monkeypatch.setattr(module, "CHUNK_BYTES", {"cpu": request.param * 4 * 11})
    return Head(torch.randn(11, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def states(seed: int = 1) -> torch.Tensor:
    return torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TARGETS = torch.tensor([0, 3, 10, 10, 4, 7, 1, 2])
TEMPERATURE = torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0, 1.0, 0.7, 1.0], dtype=torch.float64)


def log_softmax(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    return (hidden @ head.weight.T / TEMPERATURE[:, None]).log_softmax(-1)


def test_two_tokens_by_hand():
    """Two logits, 0 and log 3: p = (1/4, 3/4). The log-prob of the second moves with its logit by 1/4."""
    head = Head(torch.eye(2, dtype=torch.float64))
    hidden = torch.tensor([[0.0, torch.tensor(3.0).double().log()]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    found = head.slopes(hidden, torch.tensor([1]), one, entropy=True)
    assert found.logprobs.exp().tolist() == pytest.approx([0.75], abs=EXACT)
    assert found.of_logprobs.tolist()[0] == pytest.approx([-0.25, 0.25], abs=EXACT)
    # H = -sum p log p; its slope -p (log p + H) is as large up as down.
    up, down = found.of_entropy.tolist()[0]
    assert up == pytest.approx(-down, abs=EXACT)
    assert up > 0  # more of the rarer token: a flatter distribution


def test_logprobs_and_their_slopes_are_autograds(head):
    leaf = states().requires_grad_()
    logprobs = log_softmax(head, leaf).gather(1, TARGETS[:, None])[:, 0]
    logprobs.sum().backward()
    found = head.slopes(leaf.detach(), TARGETS, TEMPERATURE)
    assert torch.allclose(found.logprobs, logprobs, atol=EXACT)
    assert torch.allclose(found.of_logprobs, leaf.grad, atol=EXACT)
    assert torch.allclose(head.logprobs(leaf.detach(), TARGETS, TEMPERATURE), logprobs, atol=EXACT)
    assert found.of_entropy is None


def test_the_entropys_slopes_are_autograds(head):
    leaf = states().requires_grad_()
    log_p = log_softmax(head, leaf)
    (-(log_p.exp() * log_p)).sum().backward()
    found = head.slopes(leaf.detach(), TARGETS, TEMPERATURE, entropy=True)
    assert torch.allclose(found.of_entropy, leaf.grad, atol=EXACT)


def test_the_kl_and_its_slopes_are_autograds(head):
    leaf, other = states().requires_grad_(), states(2)
    log_p, log_q = log_softmax(head, leaf), log_softmax(head, other)
    kl = (log_q.exp() * (log_q - log_p)).sum(-1)
    kl.sum().backward()
    assert torch.allclose(head.kl(other, leaf.detach(), TEMPERATURE), kl, atol=EXACT)
    assert torch.allclose(head.kl_slopes(leaf.detach(), other, TEMPERATURE), leaf.grad, atol=EXACT)


def test_a_token_that_is_certain_has_no_slope_and_an_impossible_one_is_finite():
    head = Head(torch.tensor([[2000.0], [0.0]], dtype=torch.float32))
    found = head.slopes(torch.ones(2, 1), torch.tensor([0, 1]), torch.ones(2), entropy=True)
    assert found.logprobs.tolist() == [0.0, -2000.0]
    assert found.of_logprobs[0].tolist() == [0.0]
    assert bool(found.of_entropy.isfinite().all())


def test_no_more_logits_exist_at_a_time_than_a_chunk_has():
    """At any vocabulary: the chunk has fewer tokens when the vocabulary is larger."""
    assert Head(torch.zeros(49_152, 1)).chunk * 49_152 * 4 <= module.CHUNK_BYTES["cpu"]
    assert Head(torch.zeros(152_000, 1)).chunk == module.CHUNK_BYTES["cpu"] // (4 * 152_000)
    assert Head(torch.zeros(10**8, 1)).chunk == 1


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def random_model(kind: str, **more: float) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **more)).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "granite"])
def test_a_head_that_is_one_matrix_is_taken(kind):
    refuse_other_heads(random_model(kind))  # Granite's divisor of logits is 1 unless it is set


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("granite", {"logits_scaling": 8.0}, "scaled"),
        ("cohere", {"logit_scale": 0.0625}, "scaled"),
        ("gemma2", {"final_logit_softcapping": 30.0, "head_dim": 8}, "final_logit_softcapping is 30.0"),
        ("phi", {}, "adds a bias"),
    ],
)
def test_a_head_that_is_more_is_refused_with_its_reason(kind, more, why):
    with pytest.raises(InvalidConfig, match=why) as refusal:
        refuse_other_heads(random_model(kind, **more))
    assert "model.path" in refusal.value.fix
