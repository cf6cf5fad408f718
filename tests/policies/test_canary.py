"""The canary's test: bounds that hold at all times at once, and what follows from them."""

from __future__ import annotations

import math
import random

import pytest

from iterpo.config import CanarySettings
from iterpo.policies.canary import Arm, Tally, Verdict, bounds, judge

SETTINGS = CanarySettings(share=0.1)


def test_the_bounds_after_one_yes_by_hand() -> None:
    """The mixture's likelihood of one yes is 1/2; p is out when 1/2 >= p / error, so below error / 2."""
    assert bounds(1, 0, 0.1) == (pytest.approx(0.05), 1.0)
    assert bounds(0, 1, 0.1) == (0.0, pytest.approx(0.95))
    assert bounds(0, 0, 0.1) == (0.0, 1.0)


def test_bounds_close_in_on_the_share() -> None:
    widths = [high - low for low, high in (bounds(3 * n, n, 0.05) for n in (10, 100, 1000, 10_000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03
    low, high = bounds(7500, 2500, 0.05)
    assert low < 0.75 < high


def test_looking_after_every_answer_the_bounds_fail_no_more_often_than_they_may() -> None:
    """400 walks of 500 answers, looked at 500 times each, error 0.1: at most 40 expected to ever leave the bounds.
    Control: Wald's interval at the same error, looked at as often, leaves in more than half of them."""
    draw, share, walks = random.Random(0), 0.7, 400
    ever_out = wald_out = 0
    for _ in range(walks):
        yes, mine, walds = 0, False, False
        for n in range(1, 501):
            yes += draw.random() < share
            low, high = bounds(yes, n - yes, 0.1) if n % 5 == 0 else (0.0, 1.0)
            mine |= not low <= share <= high
            mean = yes / n
            walds |= n >= 20 and abs(mean - share) > 1.645 * math.sqrt(max(mean * (1 - mean), 1e-9) / n)
        ever_out += mine
        wald_out += walds
    assert ever_out <= 0.1 * walks
    assert wald_out > 0.3 * walks


def simulate(canary_good: float, serving_good: float, canary_fails: float = 0.0, steps: int = 20_000, seed: int = 0):
    """A tenth of the traffic on the canary, a fifth of the answers with feedback: the first decision, and when."""
    draw, tally = random.Random(seed), Tally()
    for step in range(1, steps + 1):
        on_canary = draw.random() < 0.1
        arm = tally.canary if on_canary else tally.serving
        if on_canary and draw.random() < canary_fails:
            arm.failed += 1
            continue
        arm.answered += 1
        if draw.random() < 0.2:
            if draw.random() < (canary_good if on_canary else serving_good):
                arm.good += 1
            else:
                arm.bad += 1
        if step % 20 == 0:
            found = judge(SETTINGS, tally, float(step))
            if found.verdict is not Verdict.HOLD:
                return found, step
    return judge(SETTINGS, tally, 0.0), steps


def test_a_worse_canary_is_rolled_back_for_its_feedback() -> None:
    for seed in range(5):
        found, _ = simulate(0.4, 0.8, seed=seed)
        assert found.verdict is Verdict.ROLLBACK
        assert "feedback is good" in found.reasons[0]


def test_a_canary_that_fails_requests_is_rolled_back_long_before_its_feedback_would_tell() -> None:
    found, step = simulate(0.8, 0.8, canary_fails=0.3)
    assert (found.verdict, step < 2000) == (Verdict.ROLLBACK, True)
    assert "requests fail" in found.reasons[0]


def test_a_better_canary_is_promoted_and_an_equal_one_never_rolled_back() -> None:
    assert simulate(0.9, 0.7)[0].verdict is Verdict.PROMOTE
    assert Verdict.ROLLBACK not in {simulate(0.7, 0.7, steps=5000, seed=seed)[0].verdict for seed in range(20)}


def test_duels_are_held_against_a_half_and_never_added_to_thumbs() -> None:
    """Both have 80 % thumbs up and win half of the duels; added up, the canary would have 65 % and the other 77 %."""
    equal = Tally(Arm(9000, 0, 320, 80), Arm(90_000, 0, 2880, 720), duels_won=200, duels_lost=200)
    assert judge(SETTINGS, equal, 1.0).verdict is not Verdict.ROLLBACK
    lost = Tally(Arm(9000), Arm(90_000), duels_won=20, duels_lost=80)
    found = judge(SETTINGS, lost, 1.0)
    assert (found.verdict, "of the duels" in found.reasons[0]) == (Verdict.ROLLBACK, True)
    assert judge(SETTINGS, Tally(Arm(9000), Arm(90_000), duels_won=180, duels_lost=60), 1.0).verdict is Verdict.PROMOTE


def test_nothing_is_decided_on_nothing() -> None:
    found = judge(SETTINGS, Tally(), 10.0)
    assert (found.verdict, found.reasons) == (Verdict.HOLD, ())
    assert all(math.isfinite(value) for value in found.numbers.values())


@pytest.mark.parametrize("undecided", ["hold", "promote", "rollback"])
def test_patience_ends_as_configured(undecided: str) -> None:
    settings = SETTINGS.model_copy(update={"undecided": undecided, "patience_seconds": 60.0})
    found = judge(settings, Tally(Arm(answered=3), Arm(answered=30)), 61.0)
    assert found.verdict == undecided
    assert "undecided after 60 s" in found.reasons[0]


def test_without_need_of_feedback_answers_that_do_not_fail_are_enough() -> None:
    settings = SETTINGS.model_copy(update={"needs_feedback": False})
    few, many = Tally(Arm(answered=50), Arm(answered=500)), Tally(Arm(answered=600), Arm(answered=6000))
    assert judge(settings, few, 1.0).verdict is Verdict.HOLD
    assert judge(settings, many, 1.0).verdict is Verdict.PROMOTE
    # The same answers, where feedback is needed.
    assert judge(SETTINGS, many, 1.0).verdict is Verdict.HOLD
