"""The label budget: the reward model answers what it is sure of, people get the rest; it is audited and retrained."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from iterpo.config import BudgetSettings
from iterpo.labeling.budget import Budget, InUse, Opinion
from iterpo.labeling.calibration import HIGHEST, calibrate, policy_calibration
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.feedback import Pair
from iterpo.labeling.labeler import Item
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.labeling.reward_directory import METRICS_FILE
from iterpo.labeling.reward_training import train_reward_model
from iterpo.store.database import open_database
from iterpo.store.leases import Ask, Mixture
from iterpo.types import FeedbackEvent, Outcome, Preference, Task, TaskKind
from tests.labeling.builders import group, prompt
from tests.labeling.tiny_model import write_tiny_model

WAIT = 20


class LengthModel:
    """Prefers the longer answer by one nat a character; fails on texts with `crash`."""

    def score_batch(self, items: Sequence[Item]) -> list[float]:
        if any("crash" in answer.text for _, answer in items):
            raise RuntimeError("out of memory")
        return [float(len(answer.text)) for _, answer in items]


class Asking:
    def __init__(self, folder: Path, **settings: float) -> None:
        self.database = open_database(folder / "feedback.db")
        self.people = PeopleDesk(
            self.database, settings=PeopleSettings(mixture=Mixture(), task_selection="uncertainty")
        )
        given = BudgetSettings(reward_model=folder / "taste", **{"audit_share": 0.0, **settings})
        self.budget = Budget(self.people, given, random.Random(0))
        self.desk = LabelingDesk(self.database, {}, people=self.people, budget=self.budget)
        self.desk.start()

    def use(self, model: LengthModel) -> None:
        self.budget._in_use = InUse(model)  # type: ignore[arg-type]  # a trained one takes its place in a test below

    def ask(self, *texts: str, name: str = "g1", implicit: dict[str, float] | None = None) -> None:
        self.desk.record("run", "people", [group(*texts, group_id=name)], f"r-{name}", implicit).result(WAIT)

    def events(self) -> list[FeedbackEvent]:
        return self.database.events("", 0, 1000).result(WAIT)

    def settled(self) -> list[FeedbackEvent]:
        """Once nothing is held back any more."""
        deadline = time.monotonic() + WAIT
        while self.desk.leads.report().counts.held and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.events()

    def for_people(self) -> list[str]:
        return [held.lease.task.group_id for held in self.people.lease(Ask("ann", 50, 60.0)).result(WAIT)[0]]

    def close(self) -> None:
        self.desk.close()
        self.database.close()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.close()


def test_without_a_reward_model_people_answer_everything_at_once(asking: Asking) -> None:
    asking.ask("a", "much longer")
    assert asking.for_people() == ["g1"]


def test_what_the_model_is_sure_of_is_its_label_and_a_preference(asking: Asking) -> None:
    asking.use(LengthModel())
    asking.ask("a", "much longer")
    events = asking.settled()
    (label,) = [e.label for e in events if e.label]
    assert (label.annotator, label.outcome, label.rationale) == (
        "reward_model/taste",
        Outcome.SECOND,
        "p_first_wins 0.000",
    )
    assert [e.preference.p_first_wins < 0.5 for e in events if e.preference] == [True]
    assert asking.for_people() == []


def test_what_it_is_not_sure_of_goes_to_people_the_least_sure_first(asking: Asking) -> None:
    """Margins of 1 and 2 nats: 0.731 and 0.881, both below 0.9."""
    asking.use(LengthModel())
    asking.ask("aaa", "a", name="two")
    asking.ask("aa", "a", name="one")
    assert not [e for e in asking.settled() if e.label]
    assert asking.for_people() == ["one", "two"]


def test_where_the_policy_contradicts_the_model_people_decide(asking: Asking) -> None:
    """The policy's implicit reward prefers the short answer by 0.1 * 30 nats: 0.95 against the model."""
    asking.use(LengthModel())
    asking.ask("a", "much longer", implicit={"g1-0": 30.0, "g1-1": 0.0})
    asking.ask("a", "much longer", name="g2", implicit={"g2-0": 0.0, "g2-1": 30.0})
    assert [e.label.group_id for e in asking.settled() if e.label] == ["g2"]
    assert asking.for_people() == ["g1"]


def test_a_slight_preference_of_the_policy_is_no_contradiction() -> None:
    first, second = group("a", "b").completions
    task = Task("t", "run", "g", prompt(), first, second)
    sure = Opinion(task, 0.97, p_policy=0.45)
    assert sure.decides(0.9)
    assert not replace(sure, p_policy=0.39).decides(0.9)
    assert not replace(sure, p_first_wins=0.89).decides(0.9)


def test_an_opinion_of_the_policy_that_people_do_not_share_contradicts_nobody(asking: Asking) -> None:
    """The policy's log-odds of 3 against the model, divided by 10, are a probability of 0.57; at the highest
    temperature it has no opinion, however sure it seems."""
    asking.budget._in_use = InUse(LengthModel(), policy_temperature=10.0)  # type: ignore[arg-type]
    asking.ask("a", "much longer", implicit={"g1-0": 30.0, "g1-1": 0.0})
    asking.settled()
    asking.budget._in_use = InUse(LengthModel(), policy_temperature=HIGHEST)  # type: ignore[arg-type]
    asking.ask("a", "much longer", name="g2", implicit={"g2-0": 3000.0, "g2-1": 0.0})
    assert [e.label.group_id for e in asking.settled() if e.label] == ["g1", "g2"]


def test_a_reward_that_is_no_number_is_no_opinion(asking: Asking) -> None:
    class Overflowing(LengthModel):
        def score_batch(self, items: Sequence[Item]) -> list[float]:
            return [math.nan if answer.text == "a" else 0.0 for _, answer in items]

    asking.use(Overflowing())
    asking.ask("a", "much longer")
    assert not [e for e in asking.settled() if e.label]
    assert asking.for_people() == ["g1"]


def test_a_model_that_comes_while_another_one_thinks_does_not_lend_it_its_temperature(asking: Asking) -> None:
    """A margin of 10 at temperature 100 is 0.525; at the newcomer's 0.1 it would be certain."""

    class Overtaken(LengthModel):
        def score_batch(self, items: Sequence[Item]) -> list[float]:
            asking.budget._in_use = InUse(LengthModel(), temperature=0.1)  # type: ignore[arg-type]
            return super().score_batch(items)

    asking.budget._in_use = InUse(Overtaken(), temperature=100.0)  # type: ignore[arg-type]
    asking.ask("a", "much longer")
    assert not [e for e in asking.settled() if e.label]


def test_how_much_the_policy_s_opinion_is_worth_is_measured_on_what_people_said() -> None:
    """Log-odds of 2, right in 30 of 40: s(2 / T) = 0.75 at T = 2 / log 3 = 1.82; in 20 of 40 it is worth nothing."""
    first, second = group("a", "b").completions
    odds = math.exp(2) / (1 + math.exp(2))

    def said(right: int, count: int = 40) -> list[Pair]:
        return [
            Pair(prompt(), first, second, Preference("g", "g1-0", "g1-1", 0.9 if n < right else 0.1), "labels", odds)
            for n in range(count)
        ]

    assert policy_calibration(said(30)) == {
        "policy_accuracy": 0.75,
        "policy_temperature": pytest.approx(2 / math.log(3), rel=0.1),
    }
    assert policy_calibration(said(20))["policy_temperature"] == pytest.approx(20.0)
    assert policy_calibration(said(10, 10)) == {}, "too few"
    assert policy_calibration([replace(pair, p_policy=None) for pair in said(30)]) == {}


def test_audited_pairs_go_to_people_beside_the_model_s_own_opinion(tmp_path: Path) -> None:
    asking = Asking(tmp_path, audit_share=1.0)
    asking.use(LengthModel())
    asking.ask("a", "much longer")
    events = asking.settled()
    people = asking.for_people()
    asking.close()
    assert [e.label.kind for e in events if e.label] == [TaskKind.AUDIT]
    assert not [e for e in events if e.preference], "it decides nothing there"
    assert people == ["g1"]


def test_a_model_that_fails_leaves_the_pairs_to_people(asking: Asking) -> None:
    asking.use(LengthModel())
    asking.ask("crash", "much longer")
    asking.settled()
    assert asking.for_people() == ["g1"]


def test_the_newest_model_that_is_right_often_enough_is_used(tmp_path: Path) -> None:
    base, taste = write_tiny_model(tmp_path / "tiny"), tmp_path / "taste"
    answers = group("you are kind day", "you are rude day").completions
    pairs = [
        Pair(prompt(), *answers, Preference(f"g{i}", answers[0].completion_id, answers[1].completion_id, 0.9), "labels")
        for i in range(4)
    ]
    for name, accuracy in (("00000100", 0.9), ("00000200", 0.6)):
        train_reward_model(base, pairs, taste / name)
        record = {"metrics": {"heldout_accuracy": accuracy, "temperature": 2.0}}
        (taste / name / METRICS_FILE).write_text(json.dumps(record))
    (taste / "00000300").mkdir()  # torn: no weights, no metrics
    asking = Asking(tmp_path)
    try:
        in_use = asking.budget._in_use
        assert in_use is not None
        assert (in_use.model.path.name, in_use.temperature) == ("00000100", 2.0)
    finally:
        asking.close()


def test_the_temperature_makes_margins_say_how_often_the_model_is_right() -> None:
    """90 of 100 right at a margin of 4 nats: s(4 / T) = 0.9 at T = 1.82; smoothing moves it to 1.92."""
    first_wins = [True] * 90 + [False] * 10
    assert calibrate([4.0] * 100, first_wins) == pytest.approx(1.92, abs=0.1)
    assert calibrate([1.0] * 100, first_wins) == pytest.approx(1.92 / 4, abs=0.05)


def test_a_few_pairs_that_are_all_right_do_not_make_the_model_certain() -> None:
    """20 of 20 right: 1 - 1/22 = 0.955, not 1."""
    temperature = calibrate([3.0] * 20, [True] * 20)
    assert 1 / (1 + math.exp(-3.0 / temperature)) == pytest.approx(21 / 22, abs=0.01)
