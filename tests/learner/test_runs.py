"""A run's life in the learner service, over a real ledger and an assembly that only fails."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from prometheus_client import CollectorRegistry

from iterpo import wire
from iterpo.clients.learner import LearnerClient
from iterpo.errors import Conflict, InvalidConfig, IterpoError, NotFound, ResourceExhausted, WrongState
from iterpo.learner import ledger as ledger_module
from iterpo.learner.ledger import Ledger
from iterpo.patience import Control
from iterpo.types import Example, IterationRow, Message, Progress, Prompt
from iterpo.v1 import learner_pb2 as pb
from services.learner import runs as learner_runs
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager, parse

WAIT_SECONDS = 10.0


def example(name: str = "p0", answers: tuple[str, ...] = ()) -> Example:
    return Example(Prompt(name, (Message("user", f"question {name}"),)), answers)


def fill_disk(ledger: Ledger) -> None:
    """The database may not grow by another page: SQLite then says what it says on a full disk."""
    pages = ledger._db.pragma("page_count")
    ledger._db.pragma("max_page_count", pages)


class Failing:
    """An assembly whose run fails at once; the disk fills up meanwhile if `full`."""

    def __init__(self, full: bool) -> None:
        self.full = full

    @contextmanager
    def loop(self, record: Any, ledger: Ledger, control: Any) -> Iterator[Any]:
        if self.full:
            fill_disk(ledger)
        raise IterpoError("no such model " + "x" * 20_000)
        yield


@pytest.mark.parametrize("full", [False, True])
async def test_a_failed_run_is_over_even_when_the_disk_is_too_full_to_record_it(tmp_path: Path, full: bool) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, Failing(full), LearnerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    changed = runs.listen()
    runs.start("r1", "first", {}, [example()], [example("h")])
    async with asyncio.timeout(WAIT_SECONDS):
        while runs.view("first").state == "RUNNING":
            await runs.changed(changed, 1.0)
    view = runs.view("first")
    assert view.state == "FAILED"
    assert view.status.startswith("no such model")
    assert ledger.get("first").state == ("RUNNING" if full else "FAILED")
    ledger._db.pragma("max_page_count", 1_000_000)
    assert runs.start("r2", "second", {}, [example()], [example("h")]).record.run_id == "second"
    await runs.drain()


def test_a_full_disk_is_said_in_words_and_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    ledger.create("r", {}, [example()], [example("h")])
    fill_disk(ledger)
    with pytest.raises(ResourceExhausted, match="Free space") as caught:
        ledger.set_state("r", "FAILED", "x" * 20_000)
    assert caught.value.reason == "DISK_FULL"
    assert isinstance(caught.value.__cause__, apsw.FullError)
    assert ledger.get("r").status == ""


def test_a_run_that_was_recorded_but_never_started_does_not_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    ledger.create("r", {}, [example()], [example("h")])
    assert ledger.get("r").state == "STOPPED"


def test_a_damaged_ledger_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "learner.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(IterpoError, match="damaged") as caught:
        Ledger(tmp_path / "learner.db")
    assert caught.value.reason == "LEDGER_CORRUPT"


class Idle:
    """An assembly whose run waits until it is stopped."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    @contextmanager
    def loop(self, record: Any, ledger: Ledger, control: Control) -> Iterator[Any]:
        self.begun.append(record.run_id)
        yield SimpleNamespace(iterations=lambda: self._wait(control))

    def _wait(self, control: Control) -> Iterator[IterationRow]:
        while True:
            control.point()
            time.sleep(0.01)
            yield from ()


class Cyclic:
    """A loop that refers to itself, as models and their modules do."""

    def __init__(self, ending: type[Exception] | None) -> None:
        self.itself, self.ending = self, ending

    def iterations(self) -> Iterator[IterationRow]:
        if self.ending is not None:
            raise self.ending("over")
        yield from ()


@pytest.mark.parametrize("ending", [None, IterpoError, ValueError])
async def test_a_run_that_has_ended_holds_no_model(tmp_path: Path, monkeypatch, ending: type[Exception] | None) -> None:
    monkeypatch.setattr(learner_runs.logger, "disabled", True)  # pytest keeps what is logged, tracebacks included
    held: list[weakref.ref[Cyclic]] = []

    @contextmanager
    def loop(record: Any, ledger: Ledger, control: Control) -> Iterator[Cyclic]:
        made = Cyclic(ending)
        held.append(weakref.ref(made))
        yield made

    ledger = Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, SimpleNamespace(loop=loop), LearnerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    changed = runs.listen()
    runs.start("r1", "r", {}, [example()], [example("h")])
    async with asyncio.timeout(WAIT_SECONDS):
        while runs.view("r").state == "RUNNING":
            await runs.changed(changed, 0.05)
    assert [ref() for ref in held] == [None]


async def test_a_repeated_request_has_no_second_effect_and_its_id_means_nothing_else(tmp_path: Path) -> None:
    """What a client does whose answer was lost on the way: it asks again with the same id."""
    ledger, idle = Ledger(tmp_path / "learner.db"), Idle()
    runs = RunManager(ledger, idle, LearnerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    changed = runs.listen()

    async def until(state: str) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while runs.view("r").state != state:
                await runs.changed(changed, 0.05)

    asked = ("id1", "r", {}, [example()], [example("h")])
    assert runs.start(*asked).state == runs.start(*asked).state == "RUNNING"
    for other in (("id1", "r", {"seed": 1.0}, *asked[3:]), ("id1", "other", *asked[2:])):
        with pytest.raises(Conflict) as reused:
            runs.start(*other)
        assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(Conflict, match="already used"):
        runs.stop("id1", "r")
    assert runs.pause("id2", "r").state == "PAUSED"
    assert runs.resume("id3", "r").state == "RUNNING"
    assert runs.pause("id2", "r").state == "RUNNING", "a pause that comes again late must not undo the resume"
    runs.stop("id4", "r")
    await until("STOPPED")
    assert runs.resume("id3", "r").state == "STOPPED"
    assert runs.start(*asked).state == "STOPPED"
    assert idle.begun == ["r"]
    # Control: another id is another request.
    runs.resume("id5", "r")
    runs.stop("id6", "r")
    await until("STOPPED")
    assert idle.begun == ["r", "r"]


async def test_looking_at_a_run_does_not_read_its_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, Failing(False), LearnerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    ledger.create("r", {"algorithm": "grpo", "iterations": 3}, [example()], [example("h")])
    reads: list[str] = []
    parse = ledger_module._parse
    monkeypatch.setattr(ledger_module, "_parse", lambda text: reads.append(text) or parse(text))
    assert runs.view("r").iterations == 3
    assert [view.record.run_id for view in runs.views()] == ["r"]
    assert reads == []
    assert ledger.get("r").heldout == [example("h")]
    assert len(reads) == 2


def test_a_run_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    for ask in (ledger.summary, ledger.get):
        with pytest.raises(NotFound, match="iterpo run status"):
            ask("r")


async def test_one_run_follows_what_serves_and_others_learn_beside_it(tmp_path: Path) -> None:
    ledger, idle = Ledger(tmp_path / "learner.db"), Idle()
    metrics = CollectorRegistry()
    runs = RunManager(ledger, idle, LearnerMetrics(metrics), most=3)  # type: ignore[arg-type]
    changed = runs.listen()
    ask = {"examples": [example()], "heldout": [example("h")]}
    beside = {"beside": True}
    runs.start("r1", "lead", {}, **ask)
    with pytest.raises(WrongState, match=r"run\.beside") as second:
        runs.start("r2", "lead2", {}, **ask)
    assert second.value.reason == "RUN_ACTIVE"
    runs.start("r3", "a", beside, **ask)
    runs.start("r4", "b", beside, **ask)
    with pytest.raises(WrongState, match=r"does 3 at a time.*learner\.runs"):
        runs.start("r5", "c", beside, **ask)
    assert sorted(idle.begun) == ["a", "b", "lead"]
    runs.pause("p", "a")
    runs.stop("s", "b")
    async with asyncio.timeout(WAIT_SECONDS):
        while runs.view("b").state != "STOPPED":
            await runs.changed(changed, 0.05)
    assert {v.record.run_id: v.state for v in runs.views()} == {"lead": "RUNNING", "a": "PAUSED", "b": "STOPPED"}
    assert metrics.get_sample_value("iterpo_learner_waiting", {"run": "a"}) == 0
    runs.resume("r6", "b")
    await runs.drain()
    async with asyncio.timeout(WAIT_SECONDS):
        while {view.state for view in runs.views()} != {"STOPPED"}:
            await runs.changed(changed, 0.05)


@pytest.mark.parametrize(("algorithm", "refused"), [("grpo", True), ("online_dpo", False)])
def test_sampling_may_not_run_farther_ahead_than_answers_may_be_old(algorithm: str, refused: bool) -> None:
    """Of a policy gradient; pairs are used at any age."""
    wanted = {"algorithm": algorithm, "ahead": 2, "max_policy_age": 2}
    if refused:
        with pytest.raises(InvalidConfig, match=r"Lower run\.ahead") as error:
            parse(wanted)
        assert error.value.reason == "AHEAD_TOO_FAR"
    else:
        parse(wanted)
    parse(wanted | {"max_policy_age": 3})


def test_a_long_runs_rows_can_be_thinned_and_the_last_one_is_among_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "learner.db")
    ledger.create("r", {}, [example()], [example("h")])
    for number in range(1, 101):
        row = IterationRow("r", number, number, True, True, 0.5, 0.5, 0.1, 1.0, 1.0, 100.0, 10.0, {}, None)
        ledger.commit(row, Progress(iteration=number), "c", [])
    thinned = [row.iteration for row in ledger.rows("r", most=10)]
    assert thinned == list(range(10, 101, 10))
    assert [row.iteration for row in ledger.rows("r", after=95, most=10)] == [96, 97, 98, 99, 100]
    assert len(ledger.rows("r")) == 100
    assert ledger.rows("r", after=100, most=10) == []


async def test_a_run_has_ended_before_its_trackers_are_through(tmp_path: Path) -> None:
    slow = threading.Event()

    @contextmanager
    def sinks(_run_id: str, _config: Any) -> Iterator[Any]:
        yield lambda _row: None
        slow.wait(WAIT_SECONDS)

    ledger = Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, Failing(False), LearnerMetrics(CollectorRegistry()), sinks=sinks)  # type: ignore[arg-type]
    runs.start("r1", "first", {}, [example()], [example("h")])
    async with asyncio.timeout(WAIT_SECONDS / 2):
        while ledger.get("first").state == "RUNNING":
            await asyncio.sleep(0.01)
    slow.set()
    await runs.drain()


def test_all_rows_of_a_long_run_are_asked_for_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_runs, "MOST_ROWS", 7)
    ledger = Ledger(tmp_path / "learner.db")
    ledger.create("r", {}, [example()], [example("h")])
    for number in range(1, 21):
        row = IterationRow("r", number, number, True, True, 0.5, 0.5, 0.1, 1.0, 1.0, 100.0, 10.0, {}, None)
        ledger.commit(row, Progress(iteration=number), "c", [])
    rows = partial(RunManager.rows, SimpleNamespace(_ledger=ledger))
    asked: list[int] = []

    def get_run(request: Any, timeout: float) -> pb.GetRunResponse:
        asked.append(request.after)
        found = rows(request.run_id, request.after, request.most_rows)
        return pb.GetRunResponse(rows=[wire.row_to_proto(row) for row in found])

    client = LearnerClient.__new__(LearnerClient)
    client._stub = SimpleNamespace(GetRun=get_run)  # type: ignore[assignment]
    assert [row.iteration for row in client.get("r").rows] == list(range(1, 21))
    assert asked == [0, 7, 14, 20]
    assert [row.iteration for row in client.get("r", most_rows=4).rows] == [5, 10, 15, 20]
