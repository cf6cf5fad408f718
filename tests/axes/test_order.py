"""What all comparisons of a group say about its order: laws, hand-computed numbers, and every order counted out."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterpo.labeling.feedback import rewards_from_preferences
from iterpo.response_sampling.order import MOST, SURE, pairwise_posterior
from iterpo.response_sampling.pair import BestWorst
from iterpo.types import Preference
from tests.axes.test_response_sampling import group, names


def said(first: str, second: str, p: float) -> Preference:
    return Preference("g", f"g/{first}", f"g/{second}", p)


def test_a_lone_comparison_is_worth_its_own_probability() -> None:
    assert pairwise_posterior(["g/a", "g/b"], [said("a", "b", 0.86)])["g/a"]["g/b"] == pytest.approx(0.86)


def test_what_two_comparisons_say_in_a_row_follows_by_the_orders_that_agree() -> None:
    """a > b and b > c, 0.9 each: abc weighs 0.81, the five others 0.09 + 0.09 + 0.09 + 0.09 + 0.01; a is above c in
    abc, acb and bac. (acb: a > b yes, b > c no.)"""
    found = pairwise_posterior(["g/a", "g/b", "g/c"], [said("a", "b", 0.9), said("b", "c", 0.9)])
    assert found["g/a"]["g/c"] == pytest.approx((0.81 + 0.09 + 0.09) / (0.81 + 4 * 0.09 + 0.01))


@given(st.lists(st.floats(SURE, 1 - SURE), min_size=6, max_size=6), st.sets(st.integers(0, 5)))
def test_it_is_what_counting_out_every_order_gives(chances: list[float], unsaid: set[int]) -> None:
    pairs = list(combinations("abcd", 2))
    comparisons = [said(*pair, p) for n, (pair, p) in enumerate(zip(pairs, chances, strict=True)) if n not in unsaid]
    found = pairwise_posterior([f"g/{name}" for name in "abcd"], comparisons)
    weights = {
        order: math.prod(
            p.p_first_wins if order.index(p.first_id[2:]) < order.index(p.second_id[2:]) else 1 - p.p_first_wins
            for p in comparisons
        )
        for order in permutations("abcd")
    }
    for a, b in permutations("abcd", 2):
        agree = sum(weight for order, weight in weights.items() if order.index(a) < order.index(b))
        assert found[f"g/{a}"][f"g/{b}"] == pytest.approx(agree / sum(weights.values()))


def test_of_two_answers_each_chance_is_the_others_rest_and_ties_and_strangers_say_nothing() -> None:
    comparisons = [said("a", "b", 0.8), said("b", "c", 0.5), said("z", "a", 0.9)]
    found = pairwise_posterior(["g/a", "g/b", "g/c"], comparisons)
    assert found["g/a"]["g/b"] == pytest.approx(0.8)
    assert all(found[x][y] + found[y][x] == pytest.approx(1) for x, y in combinations(found, 2))


def test_the_posterior_is_as_often_right_as_it_says() -> None:
    """Eight answers, each with each compared once by people who err in one of ten cases: of the best and the worst, the
    posterior expects to be right in so many of 300 groups, within three standard deviations; the probability of the
    lone vote between the two, which is all that was looked at otherwise, says far less."""
    chance = random.Random(5)
    right, expected, variance = 0, 0.0, 0.0
    for _ in range(300):
        comparisons = []
        for better, worse in combinations("abcdefgh", 2):
            p = 0.9 if chance.random() < 0.9 else 0.1
            comparisons.append(said(better, worse, p))
        found = pairwise_posterior([f"g/{name}" for name in "abcdefgh"], comparisons)
        ordered = sorted(found, key=lambda name: -sum(found[name].values()))
        p = found[ordered[0]][ordered[-1]]
        right += ordered[0] < ordered[-1]
        expected, variance = expected + p, variance + p * (1 - p)
    assert abs(right - expected) < 3 * math.sqrt(variance) + 1e-9
    assert expected > 295


def test_a_length_penalty_decides_which_is_better_and_the_comparisons_how_sure_that_is() -> None:
    """a (100 tokens) is preferred to b and c (one token) by 0.6; 0.01 a token makes it the worst, as with rewards."""
    comparisons = tuple(said(*pair, 0.6) for pair in combinations("abc", 2))
    made = group(dict.fromkeys("abc", 0.0))
    long = replace(made.completions[0], token_ids=(0,) * 100)
    made = replace(
        made,
        completions=(long, *made.completions[1:]),
        rewards=rewards_from_preferences(comparisons),
        preferences=comparisons,
    )
    selection = BestWorst(3, length_penalty=0.01).select([made], 0)
    assert names(selection) == ["g/b", "g/a"]
    assert selection.pairs[0].p_chosen > 0.5
    assert names(BestWorst(3).select([made], 0)) == ["g/a", "g/c"]


def test_of_more_answers_than_can_be_ordered_those_at_both_ends_are() -> None:
    letters = "abcdefghijklmn"
    assert len(letters) > MOST
    comparisons = tuple(said(*pair, 0.9) for pair in combinations(letters, 2))
    with pytest.raises(ValueError, match="at most 12"):
        pairwise_posterior([f"g/{name}" for name in letters], comparisons)
    made = replace(
        group(dict.fromkeys(letters, 0.0)),
        rewards=rewards_from_preferences(comparisons),
        preferences=comparisons,
    )
    selection = BestWorst(14).select([made], 0)
    assert names(selection) == ["g/a", "g/n"]
    assert selection.pairs[0].p_chosen > 0.9999
