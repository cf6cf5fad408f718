"""Strengths of policy versions from comparisons: by hand, by the likelihood's own condition, and against others'."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo.errors import InvalidInput
from iterpo.labeling.bradley_terry import Comparison, bradley_terry, fit

COMPARISONS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.1, 3.0))
    .filter(lambda c: c[0] != c[1])
    .map(lambda c: Comparison(*c)),
    min_size=1,
    max_size=12,
)


def tournament(seed: int, strengths: dict[str, float], games: int) -> list[Comparison]:
    rng = random.Random(seed)
    found = []
    for _ in range(games):
        a, b = rng.sample(sorted(strengths), 2)
        p = 1 / (1 + math.exp(strengths[b] - strengths[a]))
        found.append(Comparison(a, b, float(rng.random() < p)))
    return found


def wins_of(comparisons: list[Comparison], names: str) -> np.ndarray:
    wins = np.zeros((len(names), len(names)))
    for c in comparisons:
        a, b = names.index(c.first), names.index(c.second)
        wins[a, b] += c.weight * c.p_first_wins
        wins[b, a] += c.weight * (1 - c.p_first_wins)
    return wins


def test_three_of_four_is_a_log_odds_of_three() -> None:
    games = [Comparison("new", "old", 1.0)] * 3 + [Comparison("old", "new", 1.0)]
    new, old = bradley_terry(games, anchor=0.0, resamples=20)
    assert (new.name, old.name) == ("new", "old")
    assert new.strength - old.strength == pytest.approx(math.log(3))
    assert new.strength + old.strength == pytest.approx(0)
    assert (new.win_rate, new.comparisons, new.note) == (0.75, 4.0, "")


def test_a_tie_is_half_a_win_for_each_and_a_weight_is_as_many_games() -> None:
    ties = bradley_terry([Comparison("a", "b", 0.5)] * 4)
    assert [row.strength for row in ties] == pytest.approx([0, 0])
    heavy = bradley_terry([Comparison("a", "b", 1.0, 3.0), Comparison("a", "b", 0.0, 1.0)], anchor=0.0, resamples=20)
    assert heavy[0].strength - heavy[1].strength == pytest.approx(math.log(3))


def test_a_chain_adds_up() -> None:
    # Each beats the next two to one: log 2 a step, three steps.
    names = "abcd"
    games = [Comparison(x, y, p) for x, y in pairwise(names) for p in (1.0, 1.0, 0.0)]
    rows = bradley_terry(games, anchor=0.0, resamples=20)
    assert [row.name for row in rows] == list(names)
    assert rows[0].strength - rows[-1].strength == pytest.approx(3 * math.log(2))


def test_at_the_top_everybody_won_as_often_as_expected() -> None:
    names = "abcde"
    wins = wins_of(tournament(3, {name: i / 2 for i, name in enumerate(names)}, 400), names)
    strength = fit(wins, anchor=0.0)
    expected = ((wins + wins.T) / (1 + np.exp(strength[None, :] - strength[:, None]))).sum(axis=1)
    assert expected == pytest.approx(wins.sum(axis=1), abs=1e-6)
    off = fit(wins, anchor=0.0) + np.array([0.01, 0, 0, 0, 0])  # the negative control: a hundredth off is not the top
    assert ((wins + wins.T) / (1 + np.exp(off[None, :] - off[:, None]))).sum(axis=1) != pytest.approx(
        wins.sum(axis=1), abs=1e-6
    )


def test_who_never_lost_is_strongest_and_the_row_says_why_that_is_no_figure() -> None:
    rows = bradley_terry([Comparison("a", "b", 1.0)] * 5 + [Comparison("b", "c", p) for p in (0.0, 1.0)])
    assert rows[0].name == "a"
    assert math.isfinite(rows[0].strength)
    assert rows[0].note.startswith("Never lost")
    assert "against a" in rows[1].note, "b and c are level with each other, and neither ever beat a"


def test_islands_are_named() -> None:
    games = [Comparison(*pair, p) for pair in (("a", "b"), ("c", "d")) for p in (0.0, 1.0)]
    assert {row.note for row in bradley_terry(games)} == {
        "Never compared, not even through others, with c, d: their order says nothing.",
        "Never compared, not even through others, with a, b: their order says nothing.",
    }


def test_nine_in_ten_intervals_hold_the_truth() -> None:
    strengths = {"a": 0.6, "b": 0.0, "c": -0.6}
    held = 0
    for seed in range(40):
        rows = bradley_terry(tournament(seed, strengths, 150), resamples=100, level=0.9, seed=seed)
        held += sum(row.low <= strengths[row.name] <= row.high for row in rows)
    # 120 intervals of 90 %: 108 expected, with a standard deviation of 3.3 if they were independent.
    assert 96 <= held <= 118
    narrow = bradley_terry(tournament(0, strengths, 1500), resamples=100)[0]
    wide = bradley_terry(tournament(0, strengths, 60), resamples=100)[0]
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3, "25 times the games: a fifth of the width"


def test_the_same_seed_gives_the_same_table() -> None:
    games = tournament(1, {"a": 0.5, "b": 0.0, "c": -0.5}, 60)
    assert bradley_terry(games, seed=4) == bradley_terry(games, seed=4)
    assert bradley_terry(games, seed=4) != bradley_terry(games, seed=5)


def test_nothing_to_compare_is_an_empty_table() -> None:
    assert bradley_terry([]) == []
    assert bradley_terry([Comparison("a", "b", 1.0, weight=0.0)]) == []


@pytest.mark.parametrize(("wrong", "says"), [(Comparison("a", "a", 1.0), "itself"), (Comparison("a", "b", 1.1), "1.1")])
def test_what_cannot_be_is_refused_with_the_remedy(wrong: Comparison, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        bradley_terry([wrong])
    assert caught.value.fix


@settings(deadline=None, max_examples=50)
@given(COMPARISONS)
def test_figures_are_finite_ordered_and_add_up_to_nothing(comparisons: list[Comparison]) -> None:
    rows = bradley_terry(comparisons, resamples=20)
    assert sum(row.strength for row in rows) == pytest.approx(0, abs=1e-6)
    assert [row.strength for row in rows] == sorted((row.strength for row in rows), reverse=True)
    assert all(math.isfinite(x) for row in rows for x in (row.strength, row.low, row.high, row.win_rate))
    turned = [Comparison(c.second, c.first, 1 - c.p_first_wins, c.weight) for c in comparisons]
    again = {row.name: row.strength for row in bradley_terry(turned, resamples=20)}
    assert {row.name: row.strength for row in rows} == pytest.approx(again, abs=1e-6)


def test_choix_finds_the_same() -> None:
    choix = pytest.importorskip("choix", exc_type=ImportError)
    names = "abcde"
    games = tournament(7, {name: i / 3 for i, name in enumerate(names)}, 300)
    order = [(names.index(c.first), names.index(c.second)) for c in games]
    won = [(a, b) if c.p_first_wins else (b, a) for (a, b), c in zip(order, games, strict=True)]
    assert fit(wins_of(games, names), anchor=0.0) == pytest.approx(choix.ilsr_pairwise(5, won), abs=1e-5)


def test_evalica_finds_the_same() -> None:
    evalica = pytest.importorskip("evalica", exc_type=ImportError)
    names = "abcde"
    games = tournament(8, {name: i / 3 for i, name in enumerate(names)}, 300) + [Comparison("a", "e", 0.5)] * 10
    winner = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    theirs = evalica.bradley_terry(
        [c.first for c in games],
        [c.second for c in games],
        [winner[c.p_first_wins] for c in games],
        tolerance=1e-12,
        limit=100_000,
    )
    logs = np.log(theirs.scores[list(names)].to_numpy())
    assert fit(wins_of(games, names), anchor=0.0) == pytest.approx(logs - logs.mean(), abs=1e-4)
