"""Rows as long as memory allows: what a token keeps is counted, and a failed allocation halves them."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch

from iterpo.errors import ResourceExhausted
from iterpo.learner import memory
from iterpo.learner.memory import (
    FEWEST_TOKENS,
    LONGER,
    MOST_TOKENS,
    TokenBudget,
    fitting_budget,
    is_out_of_memory,
    kept_bytes,
)
from iterpo.learner.packing import micro_batches, pack
from iterpo.learner.policy_model import PolicyModel
from iterpo.run_config import LoraConfig
from tests.learner.test_packing import answer

CPU = torch.device("cpu")


def test_what_a_product_keeps_is_counted_once():
    """x W1 W2 with frozen weights keeps nothing; with a trained W1 it keeps x, and (x W1)^2 keeps the product too."""
    x, frozen = torch.ones(10, 4), torch.ones(4, 4)
    trained = torch.ones(4, 8, requires_grad=True)
    assert kept_bytes(lambda: (x @ frozen) @ frozen) == 0
    assert kept_bytes(lambda: x @ trained) == 10 * 4 * 4
    assert kept_bytes(lambda: (x @ trained) ** 2) == 10 * 4 * 4 + 10 * 8 * 4


def test_what_is_kept_one_after_the_other_is_counted_though_the_counting_keeps_none_of_it():
    """Each of ten squares keeps what it squared. Freed in between, they would share an address or two."""
    start = torch.ones(1000, requires_grad=True)

    def squares() -> torch.Tensor:
        x = start * 2
        for _ in range(10):
            x = x**2
        return x

    assert kept_bytes(squares) == 10 * 1000 * 4


def test_a_model_goes_when_nobody_has_it_any_more(tiny_model):
    """What counting looked at is not kept by the graph that it made: a learner would grow by a model a run."""
    made = PolicyModel(tiny_model, LoraConfig(), seed=0)
    weights = [weakref.ref(parameter) for parameter in made.peft.parameters()]
    del made
    gc.collect()
    assert [weight() for weight in weights if weight() is not None] == []


def test_the_budget_is_a_share_of_free_memory_within_bounds(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)

    def found(
        bytes_a_token: float, tokens: int | None = None, processes: int = 1, dtype: torch.dtype = torch.float32
    ) -> tuple[int, int, int]:
        budget = fitting_budget(CPU, dtype, bytes_a_token, tokens, processes)
        return budget.tokens, budget.most, budget.fits

    share, usual = int(memory.SHARE * 500), MOST_TOKENS["cpu"]
    assert found(2000) == (share, share, share)
    assert found(200) == (usual, 10 * share, 10 * share)
    assert found(200, processes=2) == (usual, 5 * share, 5 * share)
    assert found(1) == (usual, LONGER * usual, 2000 * share)
    narrow = memory.MOST_NARROW
    assert found(1, dtype=torch.bfloat16) == (narrow, LONGER * narrow, 2000 * share)
    assert found(10**9) == (FEWEST_TOKENS, FEWEST_TOKENS, FEWEST_TOKENS)
    assert found(2000, tokens=4096) == (4096, 4096, share)


def test_a_containers_limit_counts_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    unlimited = memory.free_bytes(CPU)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 700\ninactive_file 600\nactive_file 100\n")
    assert memory.free_bytes(CPU) == 2000 + 600  # a file read once needs no memory
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(CPU) > 2000
    assert unlimited > 2000


def test_a_failed_allocation_halves_the_rows_and_says_so(caplog):
    budget, seen = TokenBudget(512), []

    def compute() -> str:
        seen.append(budget.tokens)
        if budget.tokens > 128:
            torch.empty(1 << 60)
        return "done"

    with caplog.at_level(logging.WARNING):
        assert budget.within_memory(compute) == "done"
    assert seen == [512, 256, 128]
    assert caplog.text.count("halving") == 2


def test_the_longest_rows_are_halved_first_and_usual_ones_only_then():
    """The prompt of 200 tokens and its answers make a row of 600, the others' are 64 long."""
    made = [answer((5,) * 200, (6,) * 51)] * 8 + [answer((7, 8), (9,) * 31)] * 8
    budget, longest = TokenBudget(64, most=1000), []

    def compute() -> None:
        rows = [len(pack([made[i] for i in batch]).ids) for batch in micro_batches(made, budget.tokens, budget.most)]
        longest.append(max(rows))
        if longest[-1] > 300:
            raise MemoryError

    budget.within_memory(compute)
    assert longest == [600, 500, 250]
    assert (budget.tokens, budget.most, budget.fits) == (64, 250, 250)


def test_the_log_says_when_layers_are_computed_twice_and_not_for_every_row(caplog):
    budget = TokenBudget(64, fits=100)
    with caplog.at_level(logging.WARNING):
        assert [budget.too_long(tokens) for tokens in (100, 150, 150, 120, 151)] == [False, True, True, True, True]
    assert [message.split()[3] for message in caplog.messages] == ["150", "151"]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    budget = TokenBudget(512)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        budget.within_memory(lambda: torch.ones(2, 3) @ torch.ones(2, 3))
    assert budget.tokens == 512
    assert not is_out_of_memory(RuntimeError("something else"))


def test_the_shortest_rows_that_do_not_fit_are_an_error_with_a_remedy():
    def never() -> None:
        raise MemoryError

    with pytest.raises(ResourceExhausted, match=r"run\.max_tokens"):
        TokenBudget(512).within_memory(never)


def test_a_process_with_little_memory_trains_the_same_policy_in_shorter_rows(tiny_model):
    """For real: the address space is limited, torch's allocator fails, and the update is what it was without."""
    program = textwrap.dedent(
        """
        import resource, sys, torch
        from pathlib import Path
        from tests.learner.test_packing import groups
        from tests.learner.test_policy_model import gradient, model
        torch.set_num_threads(1)
        limited, answers = sys.argv[2] == "limited", groups([30] * 150, [8] * 150)
        made = model(Path(sys.argv[1]), budget=100_000)
        c = torch.randn(sum(len(a.token_ids) for a in answers), generator=torch.Generator().manual_seed(0))
        made.backward(answers[:8], torch.ones(sum(len(a.token_ids) for a in answers[:8])))
        gradient(made)
        if limited:
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            ROOM = 100 * 1024**2
            resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        def compute():
            for p in made.parameters:
                p.grad = None
            made.backward(answers, c)
        made.budget.within_memory(compute)
        print(made.budget.tokens, float(gradient(made).norm()))
        """
    )
    found = []
    for mode in ("free", "limited"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tiny_model), mode], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr[-2000:]
        tokens, norm = done.stdout.split()
        found.append((int(tokens), float(norm)))
    (whole, free), (cut, limited) = found
    assert whole == 100_000
    assert cut < whole
    assert limited == pytest.approx(free, rel=1e-6)
