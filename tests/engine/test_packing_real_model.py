"""Packing on the embedded model, with transformers' own layers: float32, against padded sequences."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from iterpo.run_config import LoraConfig
from iterpo.types import Completion, FinishReason

pytestmark = pytest.mark.engine


def test_shared_prompts_have_the_gradient_of_padded_sequences(base_model: Path) -> None:
    import torch

    from iterpo.learner.policy_model import PolicyModel

    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, 49_000) for _ in range(count))

    answers = [
        Completion("c", "p", "g", "", prompt, ids(draw.randint(1, 24)), (), FinishReason.STOP, 0, "")
        for prompt in (ids(40), ids(11), ids(3))
        for _ in range(3)
    ]
    policy = PolicyModel(base_model, LoraConfig(r=4, alpha=8), seed=0, budget=4096, dtype="float32")
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    weights = torch.randn(sum(len(c.token_ids) for c in answers), generator=torch.Generator().manual_seed(2))
    found = []
    for shares in (True, False):
        policy.shares_prompts = shares
        policy.backward(answers, weights)
        found.append(torch.cat([p.grad.flatten() for p in policy.parameters if p.grad is not None]))
        for parameter in policy.parameters:
            parameter.grad = None
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-5
    assert float(found[1].norm()) > 0
