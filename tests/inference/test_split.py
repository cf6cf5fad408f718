"""Requests go to the parts of a split in proportion to their weights, and stay where they are."""

from __future__ import annotations

from collections import Counter

import pytest

from iterpo.errors import InvalidInput
from services.inference.split import choose

USERS = [f"user-{n}" for n in range(4000)]


def test_what_is_no_split_is_left_alone() -> None:
    assert [choose(name, "k") for name in ("", "serving", "12")] == ["", "serving", "12"]


def test_shares_are_the_weights_within_four_standard_deviations() -> None:
    """10 % of 4,000: 400, standard deviation 19."""
    went = Counter(choose("serving=9,candidate=1", user) for user in USERS)
    assert abs(went["candidate"] - 400) < 4 * 19
    assert went.total() == went["serving"] + went["candidate"] == 4000


def test_a_user_stays_where_he_is_and_a_wider_canary_keeps_its_own() -> None:
    narrow = {user for user in USERS if choose("serving=0.95,candidate=0.05", user) == "candidate"}
    wide = {user for user in USERS if choose("serving=0.8,candidate=0.2", user) == "candidate"}
    assert narrow < wide
    assert choose("serving=1,candidate=0", USERS[0]) == "serving"
    assert choose("serving=0,candidate=1", USERS[0]) == "candidate"


def test_a_part_that_is_no_policy_is_heard_of_by_everybody() -> None:
    def known(name: str) -> None:
        if name != "serving":
            raise LookupError(name)

    for user in USERS[:20]:
        with pytest.raises(LookupError, match="nosuch"):
            choose("serving=0.99,nosuch=0.01", user, known)


@pytest.mark.parametrize(
    "split", ["serving=", "=1", "serving=-1,base=2", "serving=0", "a=nan", "a=inf", ",".join(["a=1"] * 9), "a=1,b"]
)
def test_a_split_that_makes_no_sense_is_refused(split: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        choose(split, "k")
    assert refused.value.reason == "BAD_SPLIT"
