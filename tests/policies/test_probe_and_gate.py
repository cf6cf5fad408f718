from __future__ import annotations

import math

import pytest

from iterpo.policies import gate, probe
from iterpo.run_config import GateConfig
from tests.policies.builders import BASE, shifted

NEW = shifted(by=0.5)
NOISE = 0.05


def test_an_engine_that_agrees_within_the_noise_is_proved():
    proof = probe.compare(BASE, NEW, shifted(by=NOISE), shifted(NEW, 2 * NOISE))
    assert proof.proved
    assert (proof.error, proof.noise_floor) == pytest.approx((0.1, 0.05))
    assert (proof.shift, proof.tokens) == (pytest.approx(0.55), 5)


@pytest.mark.parametrize(
    ("engine_new", "reason"),
    [
        (BASE, "PROBE_UNCHANGED"),
        (shifted(NEW, 1.0), "PROBE_DISAGREES"),
        (shifted(NEW, float("nan")), "PROBE_NOT_FINITE"),
        (NEW[:1], "PROBE_NOT_FINITE"),
    ],
)
def test_what_did_not_arrive_is_named(engine_new, reason):
    assert probe.compare(BASE, NEW, BASE, engine_new).reason == reason


def test_weights_closer_to_the_base_than_to_the_candidate_did_not_arrive_even_under_loud_noise():
    loud = shifted(by=0.4)
    assert probe.compare(BASE, shifted(by=0.9), loud, shifted(by=0.3)).reason == "PROBE_CLOSER_TO_BASE"


def decide(candidate=0.6, serving=0.5, kl=0.1, **update):
    return gate.decide(GateConfig(min_heldout_gain=-0.05, max_kl=1.0), (candidate, serving), kl, update)


def test_the_gate_promotes_what_is_no_worse_and_records_its_numbers():
    decision = decide(grad_norm=0.3)
    assert decision.promote
    assert decision.reasons == ()
    assert decision.numbers == {
        "heldout_candidate": 0.6,
        "heldout_serving": 0.5,
        "heldout_gain": pytest.approx(0.1),
        "kl": 0.1,
        "update_grad_norm": 0.3,
    }


def test_where_nobody_judges_held_out_answers_the_other_numbers_still_decide():
    config = GateConfig(max_kl=1.0)
    assert gate.decide(config, None, 0.1, {}).numbers == {"kl": 0.1}
    assert not gate.decide(config, None, 1.1, {}).promote


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"candidate": 0.4}, "min_heldout_gain"),
        ({"kl": 1.5}, "max_kl"),
        ({"grad_norm": math.nan}, "update_grad_norm"),
        ({"kl": math.inf}, "kl is inf"),
        ({"candidate": math.nan}, "heldout_candidate"),
    ],
)
def test_the_gate_refuses_with_the_number_that_failed(given, word):
    decision = decide(**given)
    assert not decision.promote
    assert any(word in reason for reason in decision.reasons)
