from __future__ import annotations

import math

import pytest

from iterpo.policies import gate, probe
from iterpo.run_config import GateConfig
from iterpo.types import Completion, FinishReason, Message, Prompt
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


def judged(rewards, texts=None, tokens=10, finish=FinishReason.STOP, names=None) -> list[gate.Judged]:
    """Answers with these rewards, each with a text of its own."""
    made = []
    for number, reward in enumerate(rewards):
        name = names[number] if names else f"p{number}"
        text = texts[number] if texts else f"answer {number}"
        answer = Completion(f"c{number}", name, "g", text, (), (0,) * tokens, (), finish, 0, "")
        made.append(gate.Judged(Prompt(name, (Message("user", "?"),)), answer, reward))
    return made


def decide(candidate=0.6, serving=0.5, kl=0.1, **update):
    evidence = gate.Evidence(judged([candidate] * 10), judged([serving] * 10), kl, update)
    return gate.decide(GateConfig(min_heldout_gain=-0.05, max_kl=1.0), evidence)


def compare(candidate: list[gate.Judged], serving: list[gate.Judged], **config: float):
    bounds = {"min_heldout_gain": -9.0, "min_win_rate": 0.0, "min_slice_gain": -9.0, "min_gold_gain": -9.0, **config}
    return gate.decide(GateConfig(**bounds), gate.Evidence(candidate, serving, 0.1))


def test_the_gate_promotes_what_is_no_worse_and_records_its_numbers():
    decision = decide(grad_norm=0.3)
    assert decision.promote
    assert decision.reasons == ()
    assert decision.numbers == {
        "heldout_candidate": pytest.approx(0.6),
        "heldout_serving": 0.5,
        "heldout_gain": pytest.approx(0.1),
        "win_rate": 1.0,
        "win_rate_high": pytest.approx(1.0),
        "kl": 0.1,
        "update_grad_norm": 0.3,
        "tokens_candidate": 10.0,
        "tokens_serving": 10.0,
        "length_ratio": 1.0,
        "unfinished_candidate": 0.0,
        "unfinished_gain": 0.0,
        "refusal_candidate": 0.0,
        "refusal_gain": 0.0,
        "same_answer_candidate": 0.1,
        "same_answer_gain": 0.0,
    }


def test_where_nobody_judges_held_out_answers_the_other_numbers_still_decide():
    config = GateConfig(max_kl=1.0)
    unjudged = judged([None] * 10)
    found = gate.decide(config, gate.Evidence(unjudged, unjudged, 0.1), judged=False)
    assert found.promote
    assert not {"heldout_gain", "win_rate"} & found.numbers.keys()
    assert not gate.decide(config, gate.Evidence(unjudged, unjudged, 1.1), judged=False).promote
    assert not gate.decide(config, gate.Evidence(judged([None] * 10), judged([0.5] * 10), 0.1)).promote, "abstained"


def test_wilson_s_upper_end_by_hand():
    """3 of 10: (0.3 + z^2/20 + z sqrt(0.021 + z^2/400)) / (1 + z^2/10) with z = 1.645."""
    z = 1.645
    by_hand = (0.3 + z * z / 20 + z * math.sqrt(0.3 * 0.7 / 10 + z * z / 400)) / (1 + z * z / 10)
    assert gate.wilson_high(0.3, 10) == pytest.approx(by_hand)
    assert gate.wilson_high(0.3, 1000) < gate.wilson_high(0.3, 10) < 1


def test_a_candidate_that_surely_loses_most_prompts_is_refused_though_its_mean_is_higher():
    """Loses 18 of 20 by 0.1, wins two by 5: the mean rises, and at most 0.26 of the prompts are won."""
    candidate, serving = judged([0.4] * 18 + [5.0] * 2), judged([0.5] * 18 + [0.0] * 2)
    assert decide_reasons(compare(candidate, serving, min_win_rate=0.4, min_heldout_gain=-0.05)) == ["min_win_rate"]
    few = compare(candidate[:4], serving[:4], min_win_rate=0.4)
    assert few.promote, "four prompts prove nothing"


def test_a_slice_that_falls_is_named_though_the_whole_rises():
    names = [f"math/{n}" for n in range(6)] + [f"chat/{n}" for n in range(14)]
    candidate, serving = judged([0.2] * 6 + [0.9] * 14, names=names), judged([0.5] * 20, names=names)
    decision = compare(candidate, serving, min_slice_gain=-0.15)
    assert decision.numbers["slice_gain_math"] == pytest.approx(-0.3)
    assert decision.numbers["slice_gain_chat"] == pytest.approx(0.4)
    assert len(decision.reasons) == 1
    assert "slice math" in decision.reasons[0]


def test_gold_prompts_are_looked_at_one_by_one():
    names = ["gold/1", "gold/2", *(f"p{n}" for n in range(8))]
    candidate, serving = judged([1.0, 0.2, *[1.0] * 8], names=names), judged([0.5, 1.0, *[0.5] * 8], names=names)
    decision = compare(candidate, serving, min_gold_gain=-0.5)
    assert decision.numbers["gold_worst"] == pytest.approx(-0.8)
    assert decide_reasons(decision) == ["min_gold_gain"]


SAME, REFUSING = ["the same answer"] * 10, ["I'm unable to help with that."] * 10


@pytest.mark.parametrize(
    ("candidate", "setting"),
    [
        (judged([0.5] * 10, tokens=25), "max_length_ratio"),
        (judged([0.5] * 10, texts=SAME), "max_same_answer_gain"),
        (judged([0.5] * 10, finish=FinishReason.LENGTH), "max_unfinished_gain"),
        (judged([0.5] * 10, texts=[f"{text} {n}" for n, text in enumerate(REFUSING)]), "max_refusal_gain"),
    ],
)
def test_answers_that_drift_are_refused_for_what_drifted_alone(candidate, setting):
    assert decide_reasons(compare(candidate, judged([0.5] * 10))) == [setting]
    assert compare(candidate, candidate).promote, "what was so before is no drift"


def test_an_update_of_the_wrong_size_or_shape_is_refused():
    same = judged([0.5] * 10)

    def of(**update: float):
        return gate.decide(GateConfig(min_stable_rank=1.5), gate.Evidence(same, same, 0.1, update))

    assert decide_reasons(of(relative_norm=0.2, stable_rank=3.0)) == ["max_relative_norm"]
    assert decide_reasons(of(relative_norm=0.002, stable_rank=1.0)) == ["min_stable_rank"]
    assert of(relative_norm=0.002, stable_rank=3.0).promote


def decide_reasons(decision) -> list[str]:
    """The settings that refused."""
    return [reason.split("gate.")[1].split()[0] for reason in decision.reasons]


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


@pytest.mark.parametrize(
    ("answers", "tokens", "looked_at"),
    [
        (32, 40, [0, 2, 4, 7, 9, 12, 14, 17, 19, 22, 24, 27, 29]),  # 13 answers are the first with 512 tokens
        (32, 2, list(range(32))),  # fewer in all
        (20, 1000, [0, 2, 5, 7, 10, 12, 15, 17]),  # eight at least, however long
        (3, 1000, [0, 1, 2]),
    ],
)
def test_the_kl_is_measured_at_whole_answers_spread_over_the_prompts(answers, tokens, looked_at):
    given = judged([0.0] * answers, tokens=tokens)
    found = gate.for_kl(given)
    assert [next(i for i, j in enumerate(given) if j.completion is c) for c in found] == looked_at
