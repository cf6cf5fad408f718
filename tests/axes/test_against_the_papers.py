"""Every row of the table against its paper: the algorithm-blind gradient equals autograd on the textbook loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from iterpo.algorithms import ALGORITHMS, TABLE
from iterpo.gradient import objective, prepared, token_gradient
from tests.axes.builders import random_batch
from tests.axes.textbook import LOSSES, data_of

EXACT = 1e-10
BATCHES = [(seed, soft) for seed in range(3) for soft in (False, True)]
UNLABELLED = {"kto"}
"""Learn from answers by themselves: a label's doubt and weight do not reach them."""


def given(name: str, seed: int, soft: bool):
    """A random batch as the method gets it: pairs only for methods that learn from pairs."""
    made = random_batch(seed, soft=soft and name not in UNLABELLED)
    needs = TABLE[name].gradient_coefficient.needs
    if "pairs" not in needs:
        none = torch.tensor([], dtype=torch.int64)
        empty = {"chosen": none, "rejected": none, "p_chosen": none.double(), "strength": none.double()}
        made = replace(made, **empty, weight=torch.ones(len(made.lengths), dtype=torch.float64))
    return made


def textbook(name: str, seed: int, soft: bool, without: bool = False) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Minus the gradient of the paper's loss by log-probs and by full-vocabulary KL, and minus the loss."""
    batch = random_batch(seed, soft=soft and name not in UNLABELLED)
    leaf, kl_leaf = batch.logprobs.clone().requires_grad_(), batch.reference_kl.clone().requires_grad_()
    loss = LOSSES[name](data_of(batch, leaf, kl_leaf), without)
    gradient, kl_gradient = torch.autograd.grad(loss, (leaf, kl_leaf), allow_unused=True)
    return -gradient, torch.zeros_like(kl_leaf) if kl_gradient is None else -kl_gradient, -float(loss.detach())


def test_every_row_has_its_papers_loss():
    assert set(LOSSES) == set(TABLE)


@pytest.mark.parametrize(("seed", "soft"), BATCHES)
@pytest.mark.parametrize("name", TABLE)
def test_the_gradient_is_that_of_the_papers_loss(name, seed, soft):
    found = token_gradient(TABLE[name], prepared(TABLE[name], given(name, seed, soft)))
    expected, expected_kl, _ = textbook(name, seed, soft)
    assert torch.allclose(found.gradient, expected, atol=EXACT, rtol=1e-10)
    kl = torch.zeros_like(expected_kl) if found.reference_kl is None else found.reference_kl
    assert torch.allclose(kl, expected_kl, atol=EXACT)


@pytest.mark.parametrize("name", TABLE)
def test_the_gradient_is_another_one_when_a_term_of_the_loss_is_dropped(name):
    """Negative control: on some batch the test above fails without the term that the method is about."""
    apart = 0.0
    for seed, soft in BATCHES:
        found = token_gradient(TABLE[name], prepared(TABLE[name], given(name, seed, soft)))
        expected, expected_kl, _ = textbook(name, seed, soft, without=True)
        kl = torch.zeros_like(expected_kl) if found.reference_kl is None else found.reference_kl
        apart = max(apart, float((found.gradient - expected).abs().max()), float((kl - expected_kl).abs().max()))
    assert apart > 1e-7


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_the_objective_that_is_reported_has_the_gradient_that_is_taken(algorithm):
    batch = prepared(algorithm, given(algorithm.name, 1, soft=True))
    leaf = batch.logprobs.clone().requires_grad_()
    value = objective(algorithm, replace(batch, logprobs=leaf))
    found = token_gradient(algorithm, batch)
    assert torch.allclose(torch.autograd.grad(value, leaf)[0], found.gradient, atol=EXACT, rtol=1e-10)
    assert float(value.detach()) == pytest.approx(float(found.objective), abs=1e-12)


SURROGATES = {"cispo", "cispo_verl", "nash_md", "kimi", "slic_hf"}


@pytest.mark.parametrize("name", [n for n in TABLE if n not in SURROGATES])
def test_the_objective_that_is_reported_is_minus_the_papers_loss(name):
    found = token_gradient(TABLE[name], prepared(TABLE[name], given(name, 2, soft=False)))
    assert float(found.objective) == pytest.approx(textbook(name, 2, soft=False)[2], abs=1e-9)
