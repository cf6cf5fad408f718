"""Two ranks, real processes over gloo: the gradient, the weights and the numbers of one (invariant 5)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tiny_model, tmp_path_factory) -> tuple[Found, Found]:
    """Of tests/learner/ranks.py, by one rank and by two."""

    def ran(count: int) -> Found:
        out = tmp_path_factory.mktemp("ranks") / "found.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "tests.learner.ranks", str(tiny_model), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-6000:]
        loaded: Found = torch.load(out)
        return loaded

    return ran(1), ran(2)


def difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    return float((one["gradient"] - two["gradient"]).norm() / one["gradient"].norm())


@pytest.mark.parametrize("method", ["grpo", "online_dpo", "kto", "ppo"])
def test_two_ranks_learn_what_one_does(found, method):
    """kto's coefficients look at the whole batch, so its ranks measure first; ppo has a critic to share."""
    one, two = (of[method] for of in found)
    assert difference(one, two) < 1e-10
    assert torch.allclose(one["learned"], two["learned"], atol=1e-10)
    assert torch.equal(two["learned"], two["mean"])  # every rank has the same weights
    for name in ("grad_norm", "objective", "mismatch_p50"):
        assert one["numbers"][name] == pytest.approx(two["numbers"][name], abs=1e-9)
    assert max(two["works"]) < sum(one["works"]) <= sum(two["works"]) + 1  # each did a part


def test_in_float32_two_ranks_stay_within_rounding(found):
    one, two = (of["float32"] for of in found)
    assert 0 < difference(one, two) < 1e-5


def test_a_rank_with_less_memory_shortens_the_rows_of_all(found):
    one, two = (of["smaller"] for of in found)
    assert difference(one, two) < 1e-10
    assert one["budget"] == two["budget"] == 32


def test_memory_that_runs_out_on_one_rank_shortens_the_rows_of_all(found):
    one, two = (of["scarce"] for of in found)
    assert difference(one, two) < 1e-10
    assert one["budget"] > two["budget"]
