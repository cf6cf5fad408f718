"""Merges of adapters: exact sums, best cuts, and which points no other beats."""

from __future__ import annotations

import pytest
import torch

from iterpo.errors import InvalidInput
from iterpo.policies.adapter import PREFIX, Adapter
from iterpo.policies.soup import merge, pareto


def adapter(seed: int, rank: int = 2, alpha: float = 4.0) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    return Adapter(rank, alpha, {"m": (torch.randn(rank, 5, generator=draw), torch.randn(4, rank, generator=draw))})


def update(made: Adapter) -> torch.Tensor:
    a, b = made.pairs["m"]
    return made.scaling * b @ a


def merged_update(made) -> torch.Tensor:
    return made.tensors[f"{PREFIX}m.lora_B.weight"] @ made.tensors[f"{PREFIX}m.lora_A.weight"]


def test_a_merge_is_the_weighted_sum_of_the_updates_and_its_rank_the_sum_of_theirs():
    one, two = adapter(1), adapter(2, rank=1, alpha=3.0)
    made = merge([(one, 0.7), (two, -0.2)], max_rank=16)
    assert made.rank == 3
    assert made.error == 0
    assert torch.allclose(merged_update(made), 0.7 * update(one) - 0.2 * update(two), atol=1e-5)
    assert not torch.allclose(merged_update(made), 0.7 * update(one), atol=1e-2)  # negative control


def test_beyond_the_allowed_rank_the_best_approximation_of_that_rank_is_taken():
    """Eckart-Young: no matrix of rank 2 is nearer than the sum of the two largest singular directions."""
    one, two = adapter(1), adapter(2)
    whole = 0.5 * update(one) + 0.5 * update(two)
    made = merge([(one, 0.5), (two, 0.5)], max_rank=2)
    singular = torch.linalg.svdvals(whole)
    assert made.rank == 2
    assert (merged_update(made) - whole).norm() == pytest.approx(float(singular[2:].norm()), rel=1e-4)
    assert made.error == pytest.approx(float(singular[2:].norm() / singular.norm()), rel=1e-4)


def test_a_cut_that_loses_nothing_says_so():
    one = adapter(1)
    made = merge([(one, 0.5), (one, 0.5)], max_rank=2)
    assert torch.allclose(merged_update(made), update(one), atol=1e-5)
    assert made.error < 1e-6


@pytest.mark.parametrize(
    "parts",
    [[], [(adapter(1), float("nan"))], [(adapter(1), 1.0), (Adapter(2, 4.0, {"other": adapter(2).pairs["m"]}), 1.0)]],
)
def test_what_cannot_be_merged_is_refused(parts):
    with pytest.raises(InvalidInput) as caught:
        merge(parts, 16)
    assert caught.value.fix


def test_what_no_other_point_beats_is_kept():
    points = {"a": (0.9, 0.1), "b": (0.5, 0.5), "c": (0.5, 0.4), "d": (0.1, 0.9), "e": (0.1, 0.1), "f": (0.5, 0.5)}
    assert pareto(points) == ["a", "b", "d", "f"]
    with pytest.raises(InvalidInput, match="Measure every value"):
        pareto({"a": (1.0,), "b": (1.0, 2.0)})
