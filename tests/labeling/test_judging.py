"""An oracle's failure is not a zero (invariant 4): what a labeler may do wrong, and what becomes of it."""

from __future__ import annotations

import time

import pytest

from iterpo.labeling.deadline import DeadlineRunner, StuckError
from iterpo.labeling.labeler import Abstain, Judgement, abstention_class, judge
from iterpo.labeling.queue import Judge
from iterpo.types import Abstention, Reward
from tests.labeling.builders import completion, prompt
from tests.labeling.fakes import HungLabeler, LengthModel, RuleLabeler


def raises(error: Exception):
    def rule(text: str) -> float:
        raise error

    return rule


@pytest.mark.parametrize(
    ("rule", "reason", "again"),
    [
        (raises(ConnectionError("refused")), "EXCEPTION: ConnectionError: refused", True),
        (raises(Abstain("I cannot tell")), "ABSTAINED: I cannot tell", False),
        (raises(Abstain("NO_REFERENCE_ANSWER: none")), "NO_REFERENCE_ANSWER: none", False),
        (lambda text: float("nan"), "NOT_FINITE", False),
        (lambda text: float("inf"), "NOT_FINITE", False),
        (lambda text: 1.5, "OUT_OF_RANGE", False),
        (lambda text: -0.1, "OUT_OF_RANGE", False),
        (lambda text: "good", "EXCEPTION: the labeler answered a str", False),
        (lambda text: None, "EXCEPTION: the labeler answered a NoneType", False),
    ],
)
def test_every_failure_is_an_abstention_with_its_reason(rule, reason: str, again: bool) -> None:
    (judgement,) = judge(RuleLabeler(rule), [(prompt(), completion("text"))])

    assert judgement.value is None
    assert judgement.reason.startswith(reason)
    assert judgement.worth_retrying is again
    assert isinstance(judgement.verdict("c1", "rule"), Abstention)


@pytest.mark.parametrize(("answer", "reward"), [(0.25, 0.25), (1, 1.0), (0, 0.0), (True, 1.0)])
def test_a_number_in_range_is_the_reward(answer: float, reward: float) -> None:
    (judgement,) = judge(RuleLabeler(lambda text: answer), [(prompt(), completion("text"))])
    assert judgement.verdict("c1", "rule") == Reward("c1", reward, "rule")


def test_a_reward_model_may_leave_the_unit_interval_but_must_stay_finite() -> None:
    items = [(prompt(), completion("x" * n)) for n in (3, 0)]
    assert [j.value for j in judge(LengthModel(), items)] == [3.0, 0.0]


def test_a_batch_that_answers_too_few_abstains_on_all() -> None:
    model = LengthModel()
    model.score_batch = lambda items: [1.0]
    assert [j.value for j in judge(model, [(prompt(), completion("a")), (prompt(), completion("b"))])] == [None, None]


def test_metrics_know_a_bounded_set_of_reasons() -> None:
    assert abstention_class("TIMEOUT: no answer within 30 s") == "TIMEOUT"
    assert abstention_class("whatever a user wrote: x") == "ABSTAINED"


def test_a_hung_call_is_left_behind_and_its_neighbours_are_scored() -> None:
    hung = HungLabeler()
    judged = Judge(hung, seconds=0.05)
    texts = ("fine", "hang", "fine too")

    judgements = judged.judgements([(prompt(), completion(text)) for text in texts])
    hung.release.set()

    assert [j.value for j in judgements] == [1.0, None, 1.0]
    assert judgements[1] == Judgement(None, "TIMEOUT: no answer within 0.05 s", worth_retrying=True)


def test_after_too_many_hung_calls_no_further_thread_is_started_until_one_comes_back() -> None:
    hung = HungLabeler()
    runner = DeadlineRunner(0.02, most_abandoned=2)

    def call() -> float:
        return hung.score(prompt(), completion("hang"))

    for _ in range(2):
        with pytest.raises(TimeoutError):
            runner.run(call)
    with pytest.raises(StuckError):
        runner.run(lambda: 1.0)
    hung.release.set()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert runner.run(lambda: 1.0) == 1.0
            return
        except StuckError:
            time.sleep(0.01)
    pytest.fail("the runner stayed stuck after its hung calls had returned")


def test_closing_lets_a_waiting_caller_go_at_once() -> None:
    runner = DeadlineRunner(60.0)
    runner.close()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        runner.run(lambda: HungLabeler().release.wait(5))
    assert time.monotonic() - started < 4
