"""Dawid & Skene's EM: by hand, by its laws, and against crowd-kit's."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo.errors import InvalidInput
from iterpo.labeling.dawid_skene import Ballot, Fit, Model, dawid_skene, posterior

TWO = Model(2)
FAIR = Model(2, class_prior=(0.5, 0.5))
MIRRORED = Model(2, mirror=(1, 0))


def crowd(
    seed: int, accuracies: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6), items: int = 80, classes: int = 2
) -> list[Ballot]:
    rng = random.Random(seed)
    ballots = []
    for i in range(items):
        truth = rng.randrange(classes)
        for a, accuracy in enumerate(accuracies):
            wrong = (truth + rng.randrange(1, classes)) % classes
            ballots.append(Ballot(f"{i}", f"{a}", truth if rng.random() < accuracy else wrong))
    return ballots


def matrix(fit: Fit, annotator: str) -> np.ndarray:
    return fit.confusions[fit.annotators.index(annotator)]


def test_one_m_step_by_hand() -> None:
    ballots = [Ballot("x", "ann", 0), Ballot("y", "ann", 0), Ballot("z", "ann", 1)]
    known = {"x": 0, "y": 1, "z": 1}
    # Of one item of class 0 all 0; of two of class 1 one each. The class prior is 1/3, 2/3.
    fit = dawid_skene(ballots, TWO, known)
    assert matrix(fit, "ann") == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
    assert fit.prior == pytest.approx([1 / 3, 2 / 3])
    # ln(1/3 * 1 * 2/3 * 1/2 * 2/3 * 1/2) = ln(1/27)
    assert fit.log_likelihood == pytest.approx(np.log(1 / 27))


def test_pseudo_counts_are_votes_given_before() -> None:
    model = replace(TWO, confusion_counts=((3.0, 1.0), (1.0, 3.0)), class_counts=(1.0, 1.0))
    fit = dawid_skene([Ballot("x", "ann", 0)], model, {"x": 0})
    # Row 0: (3 + 1) / 5; row 1 is the prior's. Classes: (1 + 1) / 3.
    assert matrix(fit, "ann") == pytest.approx(np.array([[0.8, 0.2], [0.25, 0.75]]))
    assert fit.prior == pytest.approx([2 / 3, 1 / 3])


def test_a_mirror_halves_the_parameters() -> None:
    ballots = [Ballot("x", "ann", 0), Ballot("y", "ann", 0), Ballot("z", "ann", 1)]
    fit = dawid_skene(ballots, MIRRORED, {"x": 0, "y": 1, "z": 1})
    # Right in two of three, whichever class it was.
    assert matrix(fit, "ann") == pytest.approx(np.array([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    assert fit.prior == pytest.approx([0.5, 0.5])
    # The negative control: untied, the rows differ (test_one_m_step_by_hand).


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_calling_the_answers_the_other_way_round_changes_nothing_but_their_names(seed: int) -> None:
    ballots = crowd(seed, items=15)
    turned = [replace(b, symbol=1 - b.symbol) for b in ballots]
    there, other = dawid_skene(ballots, MIRRORED), dawid_skene(turned, MIRRORED)
    assert there.posteriors == pytest.approx(other.posteriors[:, ::-1], abs=1e-6)
    assert there.confusions == pytest.approx(other.confusions, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([2, 3]))
def test_the_likelihood_never_falls(seed: int, classes: int) -> None:
    ballots = crowd(seed, items=15, classes=classes)
    seen = [dawid_skene(ballots, Model(classes, max_iterations=n, tolerance=0)).log_likelihood for n in range(1, 12)]
    assert all(later >= before - 1e-9 for before, later in pairwise(seen))


def test_who_is_better_than_others_is_found_and_outvotes_them() -> None:
    accuracies = (0.95, 0.6, 0.6)
    fit = dawid_skene(crowd(1, accuracies, items=1500), MIRRORED)
    # The tolerance is three standard errors of a share of 1500, 0.6 * 0.4: 0.04.
    assert [matrix(fit, a)[0, 0] for a in "012"] == pytest.approx(accuracies, abs=0.04)
    contested = [i for i, p in enumerate(fit.posteriors.max(axis=1)) if 0.5 < p < 0.999]
    assert contested


def test_a_liar_among_honest_ones_gets_a_turned_matrix() -> None:
    fit = dawid_skene(crowd(2, (0.9, 0.85, 0.8, 0.1), items=300), MIRRORED)
    assert matrix(fit, "3")[0, 0] < 0.2
    assert matrix(fit, "0")[0, 0] > 0.8


def test_a_known_class_stays_and_teaches() -> None:
    ballots = [Ballot(f"gold{i}", "liar", 1) for i in range(10)] + [Ballot("x", "liar", 1)]
    model = replace(MIRRORED, confusion_counts=((1.0, 1.0), (1.0, 1.0)), class_prior=(0.5, 0.5))
    taught = dawid_skene(ballots, model, {f"gold{i}": 0 for i in range(10)})
    assert taught.posterior_of("gold0") == pytest.approx([1, 0])
    assert taught.posterior_of("x")[0] > 0.85
    assert dawid_skene(ballots[-1:], model).posterior_of("x")[0] < 0.5, "the negative control: nobody knows him"


def test_a_weight_of_two_is_the_vote_given_twice() -> None:
    ballots = crowd(3, items=20)
    heavy = dawid_skene([replace(b, weight=2.0) for b in ballots], FAIR)
    twice = dawid_skene(ballots + ballots, FAIR)
    assert heavy.posteriors == pytest.approx(twice.posteriors)
    none = dawid_skene([*ballots, Ballot("0", "4", 1, weight=0.0)], FAIR)
    assert none.posteriors == pytest.approx(dawid_skene(ballots, FAIR).posteriors)


def test_no_votes_and_no_known_classes_are_no_error() -> None:
    fit = dawid_skene([], TWO)
    assert fit.posteriors.shape == (0, 2)
    assert fit.log_likelihood == 0.0
    assert dawid_skene([], TWO, {"x": 1}).posterior_of("x") == pytest.approx([0, 1])


def test_a_mirror_that_does_not_undo_itself_is_refused() -> None:
    with pytest.raises(InvalidInput, match="undoes itself"):
        Model(3, mirror=(1, 2, 0))


def test_the_one_item_posterior_by_hand() -> None:
    confusions = {"ann": ((0.9, 0.1), (0.2, 0.8)), "bob": ((0.6, 0.4), (0.4, 0.6))}
    # Class 0: 0.5 * 0.9 * 0.4 = 0.18; class 1: 0.5 * 0.2 * 0.6 = 0.06.
    assert posterior([("ann", 0, 1.0), ("bob", 1, 1.0)], confusions, (0.5, 0.5)) == pytest.approx((0.75, 0.25))
    # Half a vote of ann's: sqrt(0.9) against sqrt(0.2).
    assert posterior([("ann", 0, 0.5)], confusions, (0.5, 0.5))[0] == pytest.approx(0.9**0.5 / (0.9**0.5 + 0.2**0.5))
    assert posterior([], confusions, (0.3, 0.7)) == pytest.approx((0.3, 0.7))


def test_a_thousand_votes_do_not_underflow() -> None:
    confusions = {"ann": ((0.6, 0.4), (0.4, 0.6))}
    votes = [("ann", i % 2, 1.0) for i in range(5000)]
    assert posterior(votes, confusions, (0.5, 0.5)) == pytest.approx((0.5, 0.5))


def test_the_one_item_posterior_is_ems_last_step() -> None:
    ballots = crowd(4, items=30)
    fit = dawid_skene(ballots, replace(TWO, tolerance=1e-12, max_iterations=2000))
    confusions = {a: tuple(map(tuple, matrix(fit, a).tolist())) for a in fit.annotators}
    votes = [(b.annotator, b.symbol, b.weight) for b in ballots if b.item == "7"]
    assert posterior(votes, confusions, fit.prior.tolist()) == pytest.approx(fit.posterior_of("7"), abs=1e-6)


@pytest.mark.filterwarnings("ignore")  # crowd-kit 1.4.2 is older than the pandas it runs on
@pytest.mark.parametrize("classes", [2, 3])
def test_crowd_kit_finds_the_same(classes: int) -> None:
    aggregation = pytest.importorskip("crowdkit.aggregation", exc_type=ImportError)
    pandas = pytest.importorskip("pandas", exc_type=ImportError)
    ballots = crowd(5, classes=classes)
    table = pandas.DataFrame([(b.item, b.annotator, b.symbol) for b in ballots], columns=["task", "worker", "label"])
    theirs = aggregation.DawidSkene(n_iter=500, tol=1e-12).fit_predict_proba(table)
    fit = dawid_skene(ballots, Model(classes, max_iterations=500, tolerance=1e-12))
    assert fit.posteriors == pytest.approx(theirs.loc[list(fit.items), list(range(classes))].to_numpy(), abs=1e-4)
