"""A checkpoint brings everything back to the last bit, or says that it cannot; a full disk harms no other."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from iterpo.errors import CorruptModel, ResourceExhausted
from iterpo.learner import checkpoint


def trained(steps: int) -> tuple[dict[str, torch.Tensor], torch.optim.AdamW]:
    """A tiny adapter after some steps of Adam on fixed gradients."""
    torch.manual_seed(7)
    adapter = {"a.weight": torch.nn.Parameter(torch.randn(3, 4)), "b.weight": torch.nn.Parameter(torch.randn(5))}
    optimizer = torch.optim.AdamW(adapter.values(), lr=0.01)
    for _ in range(steps):
        step(adapter, optimizer)
    return adapter, optimizer


def step(adapter: dict[str, torch.Tensor], optimizer: torch.optim.AdamW) -> None:
    for parameter in adapter.values():
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()


def save(path: Path, adapter: dict[str, torch.Tensor], optimizer: torch.optim.AdamW) -> None:
    checkpoint.save(path, {k: v.detach().clone() for k, v in adapter.items()}, optimizer.state_dict())


@pytest.mark.parametrize("steps", [0, 3])
def test_what_goes_on_from_a_checkpoint_ends_where_the_uninterrupted_one_ends(tmp_path, steps):
    """Adapter, Adam's moments and step, and the random state that the next gradients are drawn from: bit for bit."""
    adapter, optimizer = trained(steps)
    save(tmp_path / "c", adapter, optimizer)
    for _ in range(2):
        step(adapter, optimizer)

    resumed, fresh = trained(0)
    torch.manual_seed(99)
    weights, state, _ = checkpoint.load(tmp_path / "c")
    with torch.no_grad():
        for name, parameter in resumed.items():
            parameter.copy_(weights[name])
    fresh.load_state_dict(state)
    for _ in range(2):
        step(resumed, fresh)
    assert all(torch.equal(adapter[name], resumed[name]) for name in adapter)


def test_without_the_optimisers_moments_the_end_would_be_another(tmp_path):
    """Negative control of the test above."""
    adapter, optimizer = trained(3)
    save(tmp_path / "c", adapter, optimizer)
    step(adapter, optimizer)
    resumed, fresh = trained(0)
    weights, _, _ = checkpoint.load(tmp_path / "c")
    with torch.no_grad():
        for name, parameter in resumed.items():
            parameter.copy_(weights[name])
    step(resumed, fresh)
    assert not torch.equal(adapter["b.weight"], resumed["b.weight"])


@contextmanager
def disk_for(size: int) -> Iterator[None]:
    """Files may grow to `size` bytes only: the system's own error, from whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_previous_checkpoint_and_nothing_else(tmp_path):
    adapter, optimizer = trained(1)
    save(tmp_path / "000001", adapter, optimizer)
    with disk_for(64), pytest.raises(ResourceExhausted, match="its previous checkpoint stands") as caught:
        save(tmp_path / "000002", adapter, optimizer)
    assert caught.value.reason == "DISK_FULL"
    assert [p.name for p in tmp_path.iterdir()] == ["000001"]
    assert torch.equal(checkpoint.load(tmp_path / "000001")[0]["b.weight"], adapter["b.weight"])


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "random.safetensors"])
def test_a_damaged_or_missing_file_is_a_clear_error(tmp_path, name):
    adapter, optimizer = trained(1)
    save(tmp_path / "c", adapter, optimizer)
    path = tmp_path / "c" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CorruptModel, match="cannot be read"):
        checkpoint.load(tmp_path / "c")
    path.unlink()
    with pytest.raises(CorruptModel, match="cannot be read"):
        checkpoint.load(tmp_path / "c")
