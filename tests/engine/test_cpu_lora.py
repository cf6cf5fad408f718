"""LoRA slots on CPU: the products of a step against the formula, token by token."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.engine

SLOTS, RANK, IN, OUT = 4, 2, 3, (5, 4)
"""Two output slices, as in a fused query-key layer."""


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def applied(torch, slots: list[int], scale: float = 1.0):
    """(what the layer's output became, what it should be)."""
    from services.inference.cpu_lora import GroupedLora, group

    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(len(slots), IN, generator=draw), torch.randn(len(slots), sum(OUT), generator=draw)
    a = [torch.randn(SLOTS, 1, RANK, IN, generator=draw) for _ in OUT]
    b = [torch.randn(SLOTS, 1, out, RANK, generator=draw) for out in OUT]
    expected = y.clone()
    for token, slot in enumerate(slots):
        if slot >= 0:
            update = torch.cat([q[slot, 0] @ (p[slot, 0] @ x[token]) for p, q in zip(a, b, strict=True)])
            expected[token] += scale * update
    wrapper = GroupedLora(16, 16, "cpu")
    wrapper._groups = group(torch.tensor(slots))
    wrapper.add_lora_linear(y, x, tuple(a), tuple(b), scale, OUT)
    return y, expected


@pytest.mark.parametrize("slots", [[0] * 6, [3, 3, 1, 1, 1], [0, 2, 0, 2, -1], [-1, -1], [1]])
def test_every_token_gets_its_own_adapter_and_no_other(torch, slots: list[int]) -> None:
    got, expected = applied(torch, slots, scale=0.5)
    assert torch.allclose(got, expected, atol=1e-5)


def test_tokens_of_the_base_are_left_alone_to_the_last_bit(torch) -> None:
    """In Python index -1 is the last slot: vLLM's own form gives the base that slot's adapter."""
    with_neighbours, expected = applied(torch, [-1, 3, -1, 3])
    assert torch.equal(with_neighbours[0], expected[0])
    assert torch.equal(with_neighbours[2], expected[2])


def test_rows_that_lie_together_are_a_slice(torch) -> None:
    from services.inference.cpu_lora import group

    (first, second), (third,) = group(torch.tensor([2, 2, 0, 0, -1])), group(torch.tensor([1, -1]))
    assert (first, second, third) == ((0, slice(2, 4)), (2, slice(0, 2)), (1, slice(0, 1)))
