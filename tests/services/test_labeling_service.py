"""LabelingService over a real grpc.aio server on a free loopback port, through the client that the learner uses."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from iterpo.clients.channel import connect, translated_errors
from iterpo.clients.labeling import LabelingClient
from iterpo.errors import Conflict, InvalidInput, Unavailable
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.labeling.queue import QueueSettings
from iterpo.store.database import open_database
from iterpo.store.leases import Mixture
from iterpo.types import Outcome
from iterpo.v1 import labeling_pb2, labeling_pb2_grpc
from services.host import Host, ServerSettings
from services.labeling.metrics import LabelingMetrics, StoreState
from services.labeling.servicer import LabelingServicer
from tests.conftest import Place
from tests.labeling.builders import completion, group, prompt
from tests.labeling.fakes import RuleLabeler
from tests.labeling.test_tasks import Coin

WAIT = 20


def fails_on_bad(text: str) -> float:
    if text == "bad":
        raise ConnectionError("down")
    return 1.0


@dataclass
class Running:
    client: LabelingClient
    stub: Any
    host: Host
    registry: CollectorRegistry

    async def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The synchronous client, as in the learner's thread: the server's loop must go on meanwhile."""
        return await asyncio.wait_for(asyncio.to_thread(function, *arguments, **named), WAIT)

    async def stream(self, run_id: str = "run", cursor: int = 0, idle_seconds: float = 0.3) -> list[Any]:
        return await self.call(lambda: list(self.client.stream(run_id, cursor, idle_seconds)))


@pytest.fixture
async def running(place: Place) -> AsyncIterator[Running]:
    registry = CollectorRegistry()
    metrics = LabelingMetrics(registry)
    database = open_database(place("feedback.db"))
    database.subscribe(metrics.on_commit)
    registry.register(StoreState(database))
    labelers = {"rule": RuleLabeler(fails_on_bad)}
    coin = Coin()
    coin.swapped = True
    people = PeopleDesk(database, settings=PeopleSettings(mixture=Mixture()), draw=coin)
    desk = LabelingDesk(
        database, labelers, QueueSettings(2, 2.0, 2, 0.01), on_verdict=metrics.on_verdict, people=people
    )
    desk.start()
    host = Host("labeling", ServerSettings("127.0.0.1:0"), registry)
    servicer = LabelingServicer(desk, metrics)
    labeling_pb2_grpc.add_LabelingServiceServicer_to_server(servicer, host.server)
    port = host.bind()
    serving = asyncio.create_task(host.run(["iterpo.v1.LabelingService"], drain=servicer.drain))
    with connect(f"127.0.0.1:{port}") as channel:
        yield Running(LabelingClient(channel), labeling_pb2_grpc.LabelingServiceStub(channel), host, registry)
    host.stop()
    await asyncio.wait_for(serving, WAIT)
    await asyncio.to_thread(desk.close)
    database.close()


async def test_recorded_groups_come_back_with_their_rewards_and_abstentions(running: Running) -> None:
    recorded = group("good", "bad")
    event_ids = await running.call(running.client.record, "run", "rule", [recorded], "r1")

    events = await running.stream(idle_seconds=0.5)

    assert events[0].group == recorded
    assert [events[0].event_id] == event_ids
    assert {e.reward.completion_id: e.reward.value for e in events if e.reward} == {"g1-0": 1.0}
    assert {e.abstention.completion_id for e in events if e.abstention} == {"g1-1"}
    assert [e.cursor for e in events] == [1, 2, 3]


async def test_a_stream_goes_on_from_its_cursor_and_keeps_to_its_run(running: Running) -> None:
    for run in ("run", "other"):
        await running.call(running.client.record, run, "people", [group("a", "b", group_id=run)], f"r-{run}")
    assert [e.cursor for e in await running.stream("run")] == [1, 2]
    assert [e.cursor for e in await running.stream("run", cursor=1)] == [2]
    assert [e.run_id for e in await running.stream("", cursor=0)] == ["run", "run", "other", "other"]


async def test_an_open_stream_hears_of_a_commit_at_once(running: Running) -> None:
    heard: list[float] = []
    arrived = threading.Event()

    def listen() -> None:
        for _ in running.client.stream("run", 0, 10.0):
            heard.append(time.monotonic())
            arrived.set()
            return

    thread = threading.Thread(target=listen)
    thread.start()
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await running.call(running.client.record, "run", "people", [group("a", "b")], "r1")
    assert await running.call(arrived.wait, 3.0), "the stream fell back to looking every five seconds"
    await running.call(thread.join, WAIT)
    assert heard[0] - started < 3.0


async def test_the_same_request_id_is_answered_from_the_store(running: Running) -> None:
    first = await running.call(running.client.record, "run", "rule", [group("good")], "same")
    again = await running.call(running.client.record, "run", "rule", [group("good")], "same")
    assert again == first
    with pytest.raises(Conflict) as reused:
        await running.call(running.client.record, "run", "rule", [group("other")], "same")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert "fresh request_id" in reused.value.fix
    assert sum(e.kind == "group" for e in await running.stream()) == 1


async def test_scoring_answers_in_order_and_stores_nothing(running: Running) -> None:
    answers = [completion(text, f"c{i}") for i, text in enumerate(("good", "bad", "fine"))]
    scores = await running.call(running.client.score, "rule", [prompt()] * 3, answers)
    assert scores == [1.0, None, 1.0]
    assert await running.stream() == []


async def test_a_person_labels_over_the_wire_and_the_server_swaps_back(running: Running) -> None:
    await running.call(running.client.record, "run", "people", [group("left", "right")], "r1")
    (lease,), open_tasks = await running.call(running.client.lease, "ann")
    assert (lease.swapped, open_tasks) == (True, 1)

    result = await running.call(running.client.submit, lease, Outcome.FIRST, strength=2, request_id="l1")
    again = await running.call(running.client.submit, lease, Outcome.FIRST, strength=2, request_id="l1")

    assert (result.accepted, result.duplicate, again.duplicate) == (True, False, True)
    (label,) = [e.label for e in await running.stream() if e.label]
    assert (label.outcome, label.strength, label.annotator) == (Outcome.SECOND, 2, "ann")
    assert await running.call(running.client.lease, "bob") == ([], 0)


async def test_recorded_completions_can_be_compared_later(running: Running) -> None:
    await running.call(running.client.record, "run", "rule", [group("good", "fine")], "r1")
    ids = await running.call(
        running.client.create_tasks, "run", [("g1-0", "g1-1")], "t1", guideline="Be kind.", required_labels=2
    )
    (lease,), _ = await running.call(running.client.lease, "ann")
    assert [lease.task.task_id] == ids
    assert (lease.task.guideline, running.client.guideline(lease)) == ("Be kind.", "Be kind.")


async def test_labelers_are_listed_with_people_among_them(running: Running) -> None:
    listed = await running.call(running.client.labelers)
    assert [(info.name, info.kind) for info in listed] == [("rule", "verifier"), ("people", "people")]


@pytest.mark.parametrize(
    ("method", "request_message", "reason", "says"),
    [
        (
            "RecordCompletions",
            labeling_pb2.RecordCompletionsRequest(request_id="r", run_id="run", labeler="nobody"),
            "TOO_MANY_OR_NONE",
            "between 1 and 1024",
        ),
        ("RecordCompletions", labeling_pb2.RecordCompletionsRequest(run_id="run"), "INVALID_ID", "request_id"),
        ("ScoreCompletions", labeling_pb2.ScoreCompletionsRequest(labeler="people"), "TOO_MANY_OR_NONE", "items"),
        ("LeaseTasks", labeling_pb2.LeaseTasksRequest(), "INVALID_ID", "annotator"),
        ("LeaseTasks", labeling_pb2.LeaseTasksRequest(annotator="a", max_tasks=1000), "OUT_OF_RANGE", "max_tasks"),
        (
            "LeaseTasks",
            labeling_pb2.LeaseTasksRequest(annotator="a", lease_seconds=float("nan")),
            "OUT_OF_RANGE",
            "lease_seconds",
        ),
        (
            "SubmitLabels",
            labeling_pb2.SubmitLabelsRequest(
                annotator="a", labels=[labeling_pb2.LabelSubmission(request_id="r", lease_id="l")]
            ),
            "INVALID_INPUT",
            "no outcome",
        ),
        (
            "SubmitLabels",
            labeling_pb2.SubmitLabelsRequest(
                annotator="a", labels=[labeling_pb2.LabelSubmission(request_id="r", lease_id="l", strength=4)]
            ),
            "OUT_OF_RANGE",
            "strength",
        ),
        (
            "CreateTasks",
            labeling_pb2.CreateTasksRequest(request_id="r", tasks=[labeling_pb2.TaskSpec(first_id="a")]),
            "INVALID_ID",
            "second_id",
        ),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(
    running: Running, method: str, request_message: Any, reason: str, says: str
) -> None:
    def call() -> None:
        with translated_errors():
            getattr(running.stub, method)(request_message, timeout=WAIT)

    with pytest.raises(InvalidInput, match=says) as refused:
        await running.call(call)
    assert refused.value.reason == reason


async def test_an_unknown_labeler_is_refused_and_nothing_is_stored(running: Running) -> None:
    with pytest.raises(InvalidInput, match="people, rule") as refused:
        await running.call(running.client.record, "run", "nobody", [group("a")], "r1")
    assert refused.value.reason == "UNKNOWN_LABELER"
    assert await running.stream() == []


async def test_a_stream_may_begin_at_the_newest_event(running: Running) -> None:
    assert await running.stream("", cursor=-1) == []
    for n in range(3):
        await running.call(running.client.record, "run", "none", [group("a", "b", group_id=f"g{n}")], f"r{n}")
    assert [e.cursor for e in await running.stream("", cursor=-1)] == [3]


async def test_other_negative_cursors_are_refused(running: Running) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        await running.stream(cursor=-2)


async def test_a_drain_ends_open_streams_with_a_reason(running: Running) -> None:
    outcome: list[BaseException] = []
    opened = threading.Event()

    def listen() -> None:
        try:
            for _ in running.client.stream("run", 0, 0.0):
                opened.set()
        except Unavailable as error:
            outcome.append(error)

    await running.call(running.client.record, "run", "people", [group("a", "b")], "r1")
    thread = threading.Thread(target=listen)
    thread.start()
    assert await running.call(opened.wait, WAIT)
    running.host.stop()
    await running.call(thread.join, WAIT)
    assert [error.reason for error in outcome if isinstance(error, Unavailable)] == ["STOPPING"]


async def test_a_cancelled_stream_leaves_the_server_serving(running: Running) -> None:
    def cut_short() -> None:
        call = running.stub.StreamFeedback(labeling_pb2.StreamFeedbackRequest(run_id="run"))
        call.cancel()
        with pytest.raises(grpc.RpcError):
            list(call)

    await running.call(cut_short)
    assert len(await running.call(running.client.labelers)) == 2


async def test_metrics_count_what_happened(running: Running) -> None:
    await running.call(running.client.record, "run", "rule", [group("good", "bad")], "r1")
    await running.call(running.client.record, "run", "rule", [group("good", "bad")], "r1")
    await running.call(running.client.record, "run", "people", [group("a", "b", group_id="g2")], "r2")
    assert len(await running.stream(idle_seconds=0.5)) == 5
    shown = generate_latest(running.registry).decode()
    for sample in (
        'iterpo_labeling_rewards_total{labeler="rule"} 1.0',
        'iterpo_labeling_abstentions_total{labeler="rule",reason="EXCEPTION"} 1.0',
        'iterpo_labeling_events_total{kind="group"} 2.0',
        'iterpo_labeling_duplicates_total{method="RecordCompletions"} 1.0',
        'iterpo_labeling_tasks{state="open"} 1.0',
        "iterpo_labeling_lease_expiries_total 0.0",
        "iterpo_labeling_queue_depth 0.0",
    ):
        assert sample in shown
