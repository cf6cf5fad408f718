"""Agreement beyond chance: published figures, laws, and the data for which there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo.labeling.agreement import Agreement, cohen_kappa, krippendorff_alpha

# Krippendorff 2011, section C: 4 observers, 12 units, `.` is missing.
FOUR_OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
# The example of Wikipedia's article: 3 coders, 15 units, of which 12 have two values or more.
THREE_CODERS = (
    ". . . . . 3 4 1 2 1 1 3 3 . 3",
    "1 . 2 1 3 3 4 3 . . . . . . .",
    ". . 2 1 3 4 4 . 2 1 1 3 3 . 4",
)
UNITS = st.lists(st.lists(st.sampled_from("ABC"), max_size=5), max_size=12)


def units(rows: Sequence[str]) -> dict[str, list[str]]:
    columns = zip(*(row.split() for row in rows), strict=True)
    return {str(i): [symbol for symbol in column if symbol != "."] for i, column in enumerate(columns)}


def test_cohens_kappa_of_fifty_proposals() -> None:
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    # Observed 35/50 = 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4.
    assert cohen_kappa(pairs) == Agreement(pytest.approx(0.4), "", 50)
    # The negative control: as much agreement as chance gives.
    assert cohen_kappa([("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no")]).value == 0.0


def test_krippendorffs_own_example() -> None:
    found = krippendorff_alpha(units(FOUR_OBSERVERS))
    # 40 pairable values, 11 units (the last has one); the published figure is 0.743.
    assert (round(found.value or 0, 3), found.items) == (0.743, 11)


def test_three_coders_with_missing_values() -> None:
    found = krippendorff_alpha(units(THREE_CODERS))
    # 26 values 1:7 2:4 3:10 4:5. Observed: the units 3,3,4 and 1,3 and 3,4 disagree in 4/2 + 2/1 + 2/1 = 6 of 26; by
    # chance 26^2 - (49 + 16 + 100 + 25) = 486 of 26 * 25. 1 - 25 * 6 / 486 = 0.691.
    assert found == Agreement(pytest.approx(1 - 150 / 486), "", 12)


@pytest.mark.parametrize(
    "found",
    [
        cohen_kappa([]),
        cohen_kappa([("first", "first")] * 9),
        krippendorff_alpha({}),
        krippendorff_alpha({"one": ["first"], "none": []}),
        krippendorff_alpha({str(i): ["first", "first"] for i in range(9)}),
    ],
)
def test_where_there_is_no_figure_a_sentence_says_why(found: Agreement) -> None:
    assert found.value is None
    assert found.undefined_because.endswith(".")


def test_two_raters_who_never_agree_still_have_a_figure() -> None:
    assert cohen_kappa([("first", "second")] * 3).value == 0.0, "each knows one symbol: chance agrees as seldom"
    # 1 - (4 - 1) * (2 + 2) / (16 - 8) = -0.5
    assert krippendorff_alpha({"a": ["x", "y"], "b": ["x", "y"]}).value == pytest.approx(-0.5)


@given(UNITS)
def test_alpha_is_at_most_one_and_never_nan(labels: list[list[str]]) -> None:
    found = krippendorff_alpha({str(i): row for i, row in enumerate(labels)})
    assert (found.value is None) == bool(found.undefined_because)
    assert found.value is None or (found.value <= 1 and not math.isnan(found.value))


@given(UNITS, st.permutations("ABC"))
def test_alpha_knows_neither_the_symbols_names_nor_their_order(labels: list[list[str]], names: list[str]) -> None:
    renamed = dict(zip("ABC", names, strict=True))
    there = krippendorff_alpha({str(i): row for i, row in enumerate(labels)})
    other = krippendorff_alpha({str(i): [renamed[x] for x in reversed(row)] for i, row in enumerate(labels)})
    assert there.value == (None if other.value is None else pytest.approx(other.value))


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("ABC")), max_size=12))
def test_kappa_does_not_care_who_is_first(pairs: list[tuple[str, str]]) -> None:
    assert cohen_kappa(pairs).value == cohen_kappa([(b, a) for a, b in pairs]).value


@settings(deadline=None)  # the first call imports the package
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.nan]), min_size=6, max_size=6), min_size=2, max_size=4))
def test_alpha_is_the_krippendorff_packages(rows: list[list[float]]) -> None:
    krippendorff = pytest.importorskip("krippendorff", exc_type=ImportError)
    found = krippendorff_alpha(
        {str(i): [x for x in column if x == x] for i, column in enumerate(zip(*rows, strict=True))}
    )
    if found.value is not None:
        theirs = krippendorff.alpha(reliability_data=rows, level_of_measurement="nominal")
        assert found.value == pytest.approx(theirs, abs=1e-9)
