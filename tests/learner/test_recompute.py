"""Layers computed again instead of kept: no number changes, and a sequence that memory cannot hold is learned from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from iterpo.learner import attention
from iterpo.learner.critic import Critic
from iterpo.learner.memory import TokenBudget
from iterpo.learner.packing import micro_batches
from iterpo.learner.policy_model import PolicyModel
from tests.learner.conftest import write_tiny_model
from tests.learner.test_packing import groups
from tests.learner.test_policy_model import gradient, model

ANSWERS = groups([5, 7, 4], [3, 2, 1])
COUNT = sum(len(c.token_ids) for c in ANSWERS)
ROWS = len(micro_batches(ANSWERS, 4096))


@pytest.fixture
def attended(monkeypatch) -> list[int]:
    """An entry each time a layer attends."""
    calls: list[int] = []
    attend = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *a, **k: calls.append(1) or attend(*a, **k))
    return calls


def remade(path, packed: bool = True, dtype: str = "float64") -> PolicyModel:
    """Any row is too long for it."""
    made = model(path, dtype=dtype)
    made.shares_prompts = packed
    made.budget = TokenBudget(made.budget.tokens, fits=1)
    return made


def of_weighted_sum(made: PolicyModel) -> torch.Tensor:
    """With KL to the base and entropy, which look at the base between forward and backward."""
    draw = torch.Generator().manual_seed(5)
    coefficients, kl = torch.randn((2, COUNT), generator=draw, dtype=torch.float64)
    made.backward(ANSWERS, coefficients, kl, entropy=0.1)
    return gradient(made)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_gradient_is_the_same_to_the_last_bit_for_a_layer_computed_twice(tiny_model, attended, dtype):
    gradients, counts = [], []
    for made in (model(tiny_model, dtype=dtype), remade(tiny_model, dtype=dtype)):
        attended.clear()
        gradients.append(of_weighted_sum(made))
        counts.append(len(attended))
    assert torch.equal(*gradients)
    # Of each row two layers for the policy, and two for the base, which keeps nothing: those not once more.
    assert counts == [4 * ROWS, 6 * ROWS]


def test_a_model_with_attention_of_its_own_has_the_same_gradient_too(tiny_model):
    kept = model(tiny_model)
    kept.shares_prompts = False
    assert torch.equal(of_weighted_sum(remade(tiny_model, packed=False)), of_weighted_sum(kept))


def test_a_critics_backward_is_the_critics(tiny_model):
    found = []
    for made in (model(tiny_model), remade(tiny_model)):
        critic = Critic(made)
        with torch.no_grad():
            for number, parameter in enumerate(critic.parameters):
                noise = torch.Generator().manual_seed(number)
                parameter.copy_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
        critic.backward(ANSWERS, torch.linspace(-1, 1, COUNT, dtype=torch.float64))
        assert all(p.grad is None for p in made.parameters)
        found.append(torch.cat([p.grad.flatten() for p in critic.parameters]))
    assert torch.equal(*found)
    assert found[0].abs().max() > 1e-3


def test_what_is_only_measured_is_not_computed_again(tiny_model, attended):
    made = remade(tiny_model)
    attended.clear()
    made.logprobs(ANSWERS)
    assert len(attended) == 2 * ROWS


def test_rows_that_fit_keep_everything_until_memory_turns_out_to_be_smaller(tiny_model, attended):
    """One sequence cannot be halved, but the budget can: then its layers are computed again."""
    made, long = model(tiny_model), groups([100], [1])
    weights = torch.ones(len(long[0].token_ids), dtype=torch.float64)
    made.budget = TokenBudget(128, fits=128)
    attended.clear()
    made.backward(long, weights)
    assert len(attended) == 2  # layers
    made.budget.halve()
    made.backward(long, weights)
    assert len(attended) == 2 + 4


def test_one_long_sequence_is_learned_from_in_memory_that_would_not_hold_it(tmp_path):
    """For real: the address space is limited. 24 layers keep 400 MB of attention weights, one keeps 17."""
    base = write_tiny_model(tmp_path / "deep", layers=24)
    program = textwrap.dedent(
        """
        import resource, sys, torch
        from pathlib import Path
        from iterpo.errors import ResourceExhausted
        from iterpo.learner.memory import TokenBudget
        from tests.learner.test_packing import answer
        from tests.learner.test_policy_model import gradient, model
        torch.set_num_threads(1)
        made = model(Path(sys.argv[1]))
        long = [answer(tuple(3 + i % 60 for i in range(12)), tuple(3 + i * 7 % 60 for i in range(500)))]
        def learn():
            for p in made.parameters:
                p.grad = None
            made.backward(long, torch.ones(500, dtype=torch.float64))
        made.budget = TokenBudget(64, fits=int(sys.argv[2]))
        made.backward([answer((5, 6), (7, 8, 9))], torch.ones(3).double())  # what threads and libraries need
        gradient(made)
        if sys.argv[3] == "limited":
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            room = 250 * 1024**2
            resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
        try:
            made.budget.within_memory(learn)
            print(float(gradient(made).norm()))
        except ResourceExhausted as error:
            print(error.reason)
        """
    )

    def run(fits: int, mode: str) -> str:
        command = [sys.executable, "-c", program, str(base), str(fits), mode]
        one_heap = os.environ | {"MALLOC_ARENA_MAX": "1"}  # another thread's own would take address space at random
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=one_heap)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    whole = run(10_000, "free")
    assert run(10_000, "limited") == "OUT_OF_MEMORY"
    assert run(64, "limited") == whole
