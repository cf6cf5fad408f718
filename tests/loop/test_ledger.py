"""The learner's own memory: one iteration is all of it or nothing, and an event is consumed once."""

from __future__ import annotations

import math

import apsw
import pytest

from iterpo.errors import Conflict, NotFound
from iterpo.learner.ledger import Ledger
from iterpo.types import Example, GateDecision, IterationRow, Progress
from tests.loop.fakes import RUN, prompt


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "learner.db")
    made.create(RUN, {"algorithm": "grpo"}, [Example(prompt(1), ("yes", "no"), 0.75)], [Example(prompt(2))])
    yield made
    made.close()


def row(iteration: int, run_id: str = RUN) -> IterationRow:
    decision = GateDecision(False, ("worse",), {"kl": 0.5})
    return IterationRow(
        run_id, iteration, 1, False, True, 0.5, math.inf, 0.1, 1.0, 2.0, 90.0, 3.0, {"x": 1.0}, decision
    )


def test_what_was_committed_is_read_back(ledger):
    ledger.commit(row(1), Progress(iteration=1, drawn=8, cursor=6, version=2), "000001", [(5, "a"), (6, "b")])
    record = ledger.get(RUN)
    assert (record.progress.iteration, record.progress.drawn, record.checkpoint) == (1, 8, "000001")
    assert ledger.rows(RUN) == [row(1)]
    assert ledger.consumed(RUN) == ["a", "b"]
    assert ledger.consumed(RUN, after=5) == ["b"]
    assert record.examples == [Example(prompt(1), ("yes", "no"), 0.75)]


def test_an_event_cannot_be_consumed_twice_and_then_nothing_of_the_iteration_is_kept(ledger):
    ledger.commit(row(1), Progress(iteration=1, cursor=1), "000001", [(1, "a")])
    with pytest.raises(apsw.ConstraintError):
        ledger.commit(row(2), Progress(iteration=2, cursor=3), "000002", [(2, "b"), (1, "a"), (3, "c")])
    assert ledger.consumed(RUN) == ["a"]
    assert [r.iteration for r in ledger.rows(RUN)] == [1]
    assert (ledger.get(RUN).progress.iteration, ledger.get(RUN).checkpoint) == (1, "000001")


def test_an_iteration_that_was_committed_cannot_be_committed_again(ledger):
    ledger.commit(row(1), Progress(iteration=1), "000001", [(1, "a")])
    with pytest.raises(apsw.ConstraintError):
        ledger.commit(row(1), Progress(iteration=1), "000001", [(2, "b")])
    assert ledger.consumed(RUN) == ["a"]


def test_another_process_sees_what_was_committed_and_marks_what_was_interrupted(ledger, tmp_path):
    ledger.commit(row(1), Progress(iteration=1), "000001", [])
    ledger.set_state(RUN, "RUNNING", "iteration 2")
    ledger.create("done", {}, [], [])
    ledger.set_state("done", "FINISHED", "finished")
    again = Ledger(tmp_path / "learner.db")
    assert again.interrupt() == [RUN]
    assert (again.get(RUN).state, again.get("done").state) == ("INTERRUPTED", "FINISHED")
    assert again.rows(RUN) == [row(1)]
    again.close()


def test_a_name_is_used_once_and_an_unknown_one_is_not_found(ledger):
    with pytest.raises(Conflict, match="iterpo run resume run"):
        ledger.create(RUN, {}, [], [])
    with pytest.raises(NotFound) as caught:
        ledger.get("other")
    assert caught.value.reason == "RUN_NOT_FOUND"
