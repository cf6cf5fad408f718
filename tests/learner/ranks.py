"""`torchrun ... -m tests.learner.ranks MODEL OUT`: one update of each case, the same on every rank. The first rank
writes what it learned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.learner.conftest import in_float64

CASES = {
    "grpo": ("grpo", "float64", ""),
    "online_dpo": ("online_dpo", "float64", ""),
    "kto": ("kto", "float64", ""),
    "ppo": ("ppo", "float64", ""),
    "float32": ("grpo", "float32", ""),
    "scarce": ("grpo", "float64", "scarce"),
    "smaller": ("grpo", "float64", "smaller"),
}
"""Method, type, and the last rank's memory: long rows turn out not to fit into it, or it is known to be smaller."""


def update(model_path: Path, method: str, dtype: str, memory: str) -> dict[str, Any]:
    from tests.learner.test_trainer import selection, trainer

    scarce = memory == "scarce"
    made = trainer(model_path, method, micro_batch_tokens=256 if scarce else 64, dtype=dtype)
    last, seen, selected = dist.get_rank() == dist.get_world_size() - 1, 0, made.model.selected
    if memory == "smaller" and last:
        made.model.budget.tokens = made.model.budget.most = 32

    def counted(completions):
        nonlocal seen
        if scarce and last and dist.get_world_size() > 1 and len(completions) > 20:
            raise MemoryError
        seen += len(completions)
        return selected(completions)

    made.model.selected = counted
    numbers = made.update(selection(12))
    learned = torch.cat([p.detach().flatten() for p in made.model.parameters]).double()
    together = learned.clone()
    dist.all_reduce(together)
    works = [torch.zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(works, torch.tensor([float(seen)]))
    return {
        "learned": learned,
        "mean": together / dist.get_world_size(),
        "gradient": torch.cat([p.grad.flatten() for p in made.model.parameters]).double(),
        "numbers": numbers,
        "works": [int(w) for w in works],
        "budget": made.model.budget.tokens,
    }


def main(model_path: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: update(model_path, *case) for name, case in CASES.items()}
    if dist.get_rank() == 0:
        torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        main(Path(sys.argv[1]), Path(sys.argv[2]))
