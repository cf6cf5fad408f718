"""Axis 1: which prompts, as a pure function of where the run stands."""

from __future__ import annotations

from collections import Counter

import pytest

from iterpo.errors import InvalidConfig
from iterpo.prompt_sampling import (
    PROMPT_SAMPLERS,
    AdaptiveDifficulty,
    Curriculum,
    RewardFilter,
    Sequential,
    Shard,
    Standing,
    Uncertainty,
    Uniform,
    uniform,
)
from iterpo.types import Example, Message, Prompt, Seen


def pool(size: int, difficulties=()) -> list[Example]:
    hard = dict(enumerate(difficulties))
    return [Example(Prompt(f"p{i}", (Message("user", "x" * (i + 1)),)), difficulty=hard.get(i)) for i in range(size)]


def at(drawn: int = 0, seed: int = 0, iteration: int = 0, seen=()) -> Standing:
    return Standing(drawn, iteration, seed, {f"p{i}": s for i, s in dict(seen).items()})


def went(reward: float | None, spread: float | None = 0.3, entropy: float = 1.0, iteration: int = 1) -> Seen:
    return Seen(reward, spread, entropy, iteration)


def frequencies(sampler, size: int, seen, count: int = 1, draws: int = 400) -> Counter[int]:
    """How often each prompt was drawn over many standings."""
    return Counter(i for k in range(draws) for i in sampler.draw(pool(size), count, at(drawn=k, seen=seen)))


def test_no_prompt_comes_twice_before_all_have_been_seen():
    assert sorted(Uniform().draw(pool(10), 10, at(0, 1))) == list(range(10))
    assert sorted(Uniform().draw(pool(10), 10, at(20, 1))) == list(range(10))


def test_drawing_in_two_parts_is_drawing_at_once():
    whole = Uniform().draw(pool(7), 12, at(0, 5))
    assert Uniform().draw(pool(7), 5, at(0, 5)) + Uniform().draw(pool(7), 7, at(5, 5)) == whole


def test_the_pool_is_shuffled_once_an_epoch_and_not_once_a_draw(monkeypatch):
    shuffled = []
    permutation = uniform.permutation
    monkeypatch.setattr(uniform, "permutation", lambda size, seed: shuffled.append(seed) or permutation(size, seed))
    drawn = Uniform().draw(pool(4), 6, at(3))
    assert shuffled == ["0/0", "0/1", "0/2"]
    assert drawn == [permutation(4, "0/0")[3], *permutation(4, "0/1"), permutation(4, "0/2")[0]]


def test_another_seed_is_another_order():
    assert Uniform().draw(pool(50), 50, at(seed=1)) != Uniform().draw(pool(50), 50, at(seed=2))


def test_sequential_goes_round():
    assert Sequential().draw(pool(3), 5, at(2)) == [2, 0, 1, 2, 0]


def test_a_curriculum_goes_from_easy_to_hard_and_then_by_length():
    """p0 and p1 say how hard they are; p2 and p3 do not, and p2 is the shorter one."""
    assert Curriculum().draw(pool(4, [0.9, 0.1]), 5, at()) == [1, 0, 2, 3, 1]


def test_every_iteration_has_a_shard_of_its_own_and_all_together_are_the_pool():
    shards = [set(Shard(3).draw(pool(9), 3, at(drawn=3 * k, iteration=k))) for k in range(3)]
    assert set.union(*shards) == set(range(9))
    assert sum(map(len, shards)) == 9
    assert set(Shard(3).draw(pool(9), 3, at(drawn=9, iteration=3))) == shards[0]  # and round again
    with pytest.raises(InvalidConfig, match="cannot be cut"):
        Shard(3).draw(pool(2), 1, at(iteration=0))


def test_no_part_of_a_shard_is_never_drawn():
    """72 prompts in three shards of 24, eight an iteration: after nine visits all have been seen, evenly."""
    times = Counter(i for k in range(27) for i in Shard(3).draw(pool(72), 8, at(drawn=8 * k, iteration=k)))
    assert len(times) == 72
    assert set(times.values()) == {3}


def test_prompts_far_from_the_target_are_still_drawn_in_turn():
    """All at reward 0 with a narrow Gaussian: equal weights, however small."""
    seen = {i: went(0.0) for i in range(20)}
    drawn = frequencies(AdaptiveDifficulty(width=0.02), 20, seen)
    assert len(drawn) == 20
    unbounded = frequencies(AdaptiveDifficulty(), 20, {i: went(-40.0) for i in range(20)})
    assert len(unbounded) == 20


def test_what_was_not_measured_counts_as_not_seen():
    single = {0: went(0.4, spread=None), 1: went(None, spread=None)}
    assert sorted(RewardFilter().draw(pool(2), 2, at(seen=single, iteration=1))) == [0, 1]
    drawn = frequencies(AdaptiveDifficulty(), 2, {0: went(None), 1: went(0.5)})
    assert 0.8 < drawn[0] / drawn[1] < 1.25


def test_adaptive_difficulty_prefers_prompts_that_succeed_half_the_time():
    seen = {0: went(0.0), 1: went(0.5), 2: went(1.0)}
    drawn = frequencies(AdaptiveDifficulty(), 3, seen)
    assert drawn[1] > 10 * (drawn[0] + 1)
    assert drawn[1] > 10 * (drawn[2] + 1)


def test_a_prompt_never_seen_counts_like_one_at_the_target():
    drawn = frequencies(AdaptiveDifficulty(), 2, {0: went(0.5)})
    assert 0.8 < drawn[0] / drawn[1] < 1.25


def test_what_went_all_right_or_all_wrong_is_held_back_and_comes_again():
    seen = {0: went(0.0), 1: went(1.0), 2: went(0.4), 3: went(0.7, spread=0.0)}
    sampler = RewardFilter(again=10)
    assert {i for k in range(50) for i in sampler.draw(pool(5), 2, at(k, seen=seen))} == {2, 4}
    later = {i for k in range(50) for i in sampler.draw(pool(5), 2, at(k, iteration=11, seen=seen))}
    assert later == {0, 1, 2, 3, 4}


def test_with_everything_held_back_the_longest_held_come_first():
    seen = {0: went(1.0, iteration=3), 1: went(1.0, iteration=1), 2: went(0.0, iteration=2)}
    assert RewardFilter().draw(pool(3), 2, at(iteration=4, seen=seen)) == [1, 2]


def test_uncertainty_prefers_what_is_least_settled_by_either_measure():
    seen = {0: went(0.5, spread=0.5, entropy=0.0), 1: went(0.5, spread=0.0, entropy=2.0)}
    by_spread, by_entropy = frequencies(Uncertainty(), 2, seen), frequencies(Uncertainty("entropy"), 2, seen)
    assert by_spread[0] > 10 * (by_spread[1] + 1)
    assert by_entropy[1] > 10 * (by_entropy[0] + 1)


@pytest.mark.parametrize("sampler", [s() for s in PROMPT_SAMPLERS.values()], ids=lambda s: s.name)
def test_a_draw_depends_on_where_the_run_stands_and_on_nothing_else(sampler):
    """Resuming from a checkpoint draws what the uninterrupted run would have drawn."""
    standing = at(5, 3, 2, {0: went(0.2), 4: went(0.9, 0.1)})
    first = sampler.draw(pool(20), 6, standing)
    assert sampler.draw(pool(20), 6, standing) == first
    assert len(first) == len(set(first)) == 6


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shard(0),
        lambda: AdaptiveDifficulty(width=0.0),
        lambda: RewardFilter(low=1.0, high=0.0),
        lambda: Uncertainty("surprise"),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(InvalidConfig, match="Use"):
        make()
