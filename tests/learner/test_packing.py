"""Rows without padding, each prompt once: what lies where, and that no gradient can tell."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo.learner import attention
from iterpo.learner.memory import kept_bytes
from iterpo.learner.packing import PADDING, SHARED, filled_in_turn, micro_batches, pack, padded_batches
from iterpo.types import Completion, FinishReason
from tests.learner.test_policy_model import gradient, model

CLOSE = 1e-10


def answer(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Completion:
    return Completion("c", "p", "g", "", prompt, tokens, (), FinishReason.STOP, 0, "", temperature=0.9)


def groups(prompt_lengths: list[int], sizes: list[int], seed: int = 3) -> list[Completion]:
    """Answers of 1 to 9 tokens."""
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 64) for _ in range(count))

    prompts = [ids(length) for length in prompt_lengths]
    return [answer(p, ids(draw.randint(1, 9))) for p, size in zip(prompts, sizes, strict=True) for _ in range(size)]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_a_row_has_each_prompt_once_and_answers_without_their_last_token():
    row = pack([answer((5, 6), (7, 8, 9)), answer((5, 6), (10,)), answer((11,), (12, 13))])
    assert row.ids.tolist() == [5, 6, 7, 8, 11, 12]
    assert row.positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert row.prompts.tolist() == [[0, 1], [4, 6]]
    assert row.known.tolist() == [[True, True], [True, False]]
    assert row.answers.tolist() == [[[2, 3], [6, 6]], [[5, 6], [6, 6]]]
    # 7 is read after the prompt, 8 after 7, 9 after 8; 10 after the prompt; 12 and 13 after 11 and 12.
    assert row.reads.tolist() == [1, 2, 3, 1, 4, 5]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=1, max_size=6),
    st.integers(1, 80),
    st.integers(0, 200),
)
def test_micro_batches_cover_everything_once_and_keep_the_budget(shape, budget, most):
    made = groups([p for p, _ in shape], [n for _, n in shape])
    batches = micro_batches(made, budget, most)
    assert sorted(i for batch in batches for i in batch) == list(range(len(made)))

    def fits(batch, room: int = budget) -> bool:
        row = pack([made[i] for i in batch])
        places = row.prompts.numel() + row.answers.numel()
        return len(row.ids) <= room and places <= PADDING * len(row.ids)

    def room(batch) -> int:
        """More than the budget for answers to one prompt alone."""
        prompts = {made[i].prompt_token_ids for i in batch}
        return min(most, SHARED * len(min(prompts))) if len(prompts) == 1 else budget

    assert all(fits(batch) or fits(batch, room(batch)) or len(batch) == 1 for batch in batches)
    # Nobody begins a row who could have sat, with all answers to his prompt, with the ones before; evened out, rows are
    # no more.
    prompts = {
        c.prompt_token_ids: [i for i, o in enumerate(made) if o.prompt_token_ids == c.prompt_token_ids] for c in made
    }
    in_turn = filled_in_turn(list(prompts.items()), [len(c.token_ids) for c in made], budget, most)
    for before, after in pairwise(in_turn):
        whole = prompts[made[after[0]].prompt_token_ids]
        assert set(whole) & set(before) or not fits((*before, *whole))


def lengths_of_rows(made: list[Completion], budget: int) -> list[int]:
    return [len(pack([made[i] for i in batch]).ids) for batch in micro_batches(made, budget)]


@pytest.mark.parametrize(
    ("sizes", "budget", "rows"),
    [
        ([4] * 8, 70, [60, 60, 40]),  # three groups of 20 tokens a row: 70 would hold no more
        ([4] * 8, 90, [80, 80]),
        ([4] * 5, 90, [60, 40]),  # filled in turn: 80 and 20
        ([8], 24, [20, 20]),  # eight answers of 4 to a prompt of 4; in turn: 24 and 16
        ([5, 1], 24, [24, 8]),  # 20 and 16, were the five answers parted, and their prompt computed twice
    ],
)
def test_rows_are_as_even_as_may_be_and_no_more(sizes, budget, rows):
    made = [answer((5, 6, 7, 8 + g), (9,) * 5) for g, size in enumerate(sizes) for _ in range(size)]
    assert lengths_of_rows(made, budget) == rows


def test_eight_groups_of_eight_answers_of_different_lengths_are_one_row():
    """As long as they fit: then one pass serves measuring and learning."""
    draw = random.Random(0)
    made = [answer((5, 6, *range(3, 60), g + 3), (7,) * draw.randint(12, 48)) for g in range(8) for _ in range(8)]
    assert len(micro_batches(made, 4096)) == 1


LONG = [answer(tuple(range(3, 43)), (7,) * 11)] * 4
"""40 tokens and four answers of 11, ten of which are passed."""


def test_a_prompt_of_many_tokens_is_computed_once_for_its_answers_though_the_row_is_beyond_the_budget():
    """80 tokens instead of four rows of 50. Answers to a prompt of 4 tokens are cut where the budget is full: to
    compute it twice costs little."""
    short = [answer((5, 6, 7, 8), (9,) * 16)] * 4
    assert micro_batches(LONG + short, 50, most=100) == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert [len(batch) for batch in micro_batches(LONG, 50, most=60)] == [2, 2]
    assert [len(batch) for batch in micro_batches(LONG, 50)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("prompts", "ranks", "rows"),
    [
        (1, 1, [80]),
        (1, 2, [60, 60]),  # its own half of the answers for each rank, and the prompt on both
        (2, 2, [80, 80]),
        (3, 2, [80, 80, 80]),  # one has two of them, 160 tokens; with a prompt cut in two, both would have 140
    ],
)
def test_ranks_have_rows_of_like_length_and_a_prompt_is_on_two_of_them_only_where_there_are_fewer_prompts(
    prompts, ranks, rows
):
    made = [answer((5 + n, *c.prompt_token_ids[1:]), c.token_ids) for n in range(prompts) for c in LONG]
    batches = micro_batches(made, 1000, most=1000, ranks=ranks)
    assert [len(pack([made[i] for i in batch]).ids) for batch in batches] == rows


def test_one_long_answer_does_not_make_attention_compute_mostly_nothing():
    """In one rectangle with it, a hundred short answers would be padded to its length."""
    short = [answer((5, 6, 7), tuple(range(3, 23))) for _ in range(100)]
    long = [answer((8, 9), tuple(3 + t % 60 for t in range(1000)))]
    for row in (pack([(short + long)[i] for i in batch]) for batch in micro_batches(short + long, 4096)):
        assert row.answers.numel() < 2 * len(row.ids)


def test_padded_batches_keep_the_budget_with_their_padding():
    lengths = [5, 9, 2, 30, 7, 7, 1]
    batches = padded_batches(lengths, budget=20)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= 20 for b in batches)


def test_an_answer_without_tokens_has_no_place_and_no_number(tiny_model):
    """Inference was stopped before the first one."""
    made = [answer((5, 6), (7, 8)), answer((5, 6), ()), answer((9,), ())]
    assert pack(made).reads.tolist() == [1, 2]
    policy = model(tiny_model)
    assert policy.logprobs(made).shape == (2,)
    assert torch.equal(policy.logprobs(made), policy.logprobs(made[:1]))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=4), st.integers(1, 60), st.data()
)
def test_shared_packed_and_one_at_a_time_have_the_same_gradient(tiny_model, shape, budget, data):
    made = groups([p for p, _ in shape], [n for _, n in shape], seed=data.draw(st.integers(0, 1000)))
    weights = torch.randn(sum(len(c.token_ids) for c in made), dtype=torch.float64)
    whole, cut = model(tiny_model), model(tiny_model, budget)
    alone = model(tiny_model)
    alone.shares_prompts = False  # the model's own attention over padded sequences
    for one in (whole, cut, alone):
        one.backward(made, weights)
    expected = gradient(alone)
    assert relative(gradient(whole), expected) < CLOSE
    assert relative(gradient(cut), expected) < CLOSE
    assert torch.allclose(whole.logprobs(made), alone.logprobs(made), atol=1e-12)


def test_scores_that_are_computed_again_give_the_same_gradient(tiny_model, monkeypatch):
    made = groups([5, 7], [3, 2])
    weights = torch.randn(sum(len(c.token_ids) for c in made), dtype=torch.float64)
    kept = model(tiny_model)
    kept.backward(made, weights)
    calls = []
    monkeypatch.setattr(attention, "KEPT_BYTES", 0)
    monkeypatch.setattr(
        attention, "checkpoint", lambda *a, **k: calls.append(1) or torch.utils.checkpoint.checkpoint(*a, **k)
    )
    again = model(tiny_model)
    again.backward(made, weights)
    assert calls
    assert torch.equal(gradient(again), gradient(kept))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_counted_as_they_are_kept(dtype):
    """Of a long prompt they are nearly all that is kept; counted twice, they would be computed again for nothing."""
    layout = pack(groups([200], [4]))
    q, k, v = (torch.randn(len(layout.ids), 4, 2, dtype=dtype, requires_grad=True) for _ in range(3))
    kept = kept_bytes(lambda: attention.attend(q, k, v, layout, 1.0))
    counted = attention.scores_bytes(layout, q)
    assert 0.8 * kept < counted <= kept, (kept, counted)


def test_queries_keys_and_values_are_kept_once_though_two_products_read_an_answers_queries():
    """Of 8 heads, 16 numbers each; a prompt of one token, eight answers of three. Besides, weights alone are kept."""
    layout = pack([answer((5,), (6, 7, 8, 9))] * 8)
    assert len(layout.ids) == 1 + 8 * 3
    q, k, v = (torch.randn(25, 8, 16, requires_grad=True) for _ in "qkv")
    kept = kept_bytes(lambda: attention.attend(q, k, v, layout, 1.0))
    assert kept == 3 * 25 * 8 * 16 * 4 + attention.scores_bytes(layout, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_are_kept_once_have_autograds_gradient_to_the_last_bit(dtype):
    """Over two blocks side by side, of which one hides a token from everybody, the other what comes later."""
    hidden = torch.tensor([False, True]), attention._later(3, torch.device("cpu"))

    def with_gradient(weights_of):
        scores = [torch.linspace(-3, 3, 3 * width, dtype=dtype).view(3, width).requires_grad_() for width in (2, 3)]
        weights = weights_of(*scores)
        loss = sum((w * torch.linspace(-1, 2, w.numel(), dtype=dtype).view_as(w)).sum() for w in weights)
        loss.backward()
        return [*(w.detach() for w in weights), *(s.grad for s in scores)]

    def autograds(*scores):
        seen = [s.masked_fill(h, -torch.inf) for s, h in zip(scores, hidden, strict=True)]
        return (torch.cat(seen, -1) * 0.5).softmax(-1).split([2, 3], -1)

    ours = with_gradient(lambda *scores: attention._weights(0.5, *zip(scores, hidden, strict=True)))
    theirs = with_gradient(autograds)
    assert all(torch.equal(*both) for both in zip(ours, theirs, strict=True))
    assert min(gradient.abs().max() for gradient in ours[2:]) > 0.02
    assert all((weights.masked_select(h) == 0).all() for weights, h in zip(ours[:2], hidden, strict=True))


def test_in_bfloat16_weights_are_kept_in_two_bytes_each():
    """Autograd keeps four more, of the softmax in float32."""
    scores, none = torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True), torch.zeros(8, dtype=torch.bool)
    assert kept_bytes(lambda: attention._weights(1.0, (scores, none))) == 2 * 40
    assert kept_bytes(lambda: scores.float().softmax(-1).to(torch.bfloat16)) == 4 * 40


def test_answers_do_not_see_each_other_nor_another_prompt(tiny_model):
    """Change one answer, and no other's log-probs move; change a prompt, and those of its answers do."""
    made = groups([4, 6], [2, 2])
    policy = model(tiny_model)
    before = policy.logprobs(made).split([len(c.token_ids) for c in made])
    changed = [answer(made[0].prompt_token_ids, (33, 34, 35)), *made[1:]]
    after = policy.logprobs(changed).split([len(c.token_ids) for c in changed])
    for one, other in zip(before[1:], after[1:], strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    other_prompt = tuple(60 - t % 50 for t in made[0].prompt_token_ids)
    moved = [answer(other_prompt, c.token_ids) for c in made[:2]] + made[2:]
    after = policy.logprobs(moved).split([len(c.token_ids) for c in moved])
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    assert torch.allclose(before[2], after[2], atol=1e-12)


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        ({}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, False),
        ({"layer_types": ["conv", "full_attention"]}, False),
        ({"sliding_window": 4096}, False),  # Mistral's
        ({"sliding_window": 4096, "use_sliding_window": False, "layer_types": ["full_attention"]}, True),  # Qwen's
        ({"attn_logit_softcapping": 50.0}, False),
    ],
)
def test_models_whose_attention_is_another_one_are_padded(config, plain):
    assert attention.is_plain(type("Config", (), config)()) is plain
