"""The Annotate stream over a real server: credit, acknowledgements, resumption, and what it refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.errors import InvalidInput, PermissionDenied, WrongState
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.guidelines import Guideline, Guidelines
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.store.database import open_database
from iterpo.store.leases import Mixture
from iterpo.types import AnnotatorState, FeedbackEvent, Label, Outcome
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import labeling_pb2_grpc, types_pb2
from services.host import Host, ServerSettings
from services.labeling.metrics import LabelingMetrics
from services.labeling.servicer import LabelingServicer
from services.tokens import Tokens
from tests.conftest import Place
from tests.labeling.builders import group
from tests.services.labeling_process import labeling_process, write_config

WAIT = 20
SOON = 2.0
TOKENS = {"a" * 20: "annotator:ann", "d" * 20: "admin"}


@dataclass
class Service:
    address: str
    desk: LabelingDesk

    def ask(self, count: int, required: float = 1.0, start: int = 0) -> None:
        groups = [group("left", "right", group_id=f"g{start + i}") for i in range(count)]
        self.desk.plan = type(self.desk.plan)(required)
        self.desk.record("run", "people", groups, f"r{start}").result(WAIT)

    def events(self) -> list[FeedbackEvent]:
        return self.desk.database.events("", 0, 100_000).result(WAIT)

    def labels(self) -> list[Label]:
        return [e.label for e in self.events() if e.label]


async def serve(where: Path | str, tokens: dict[str, str]) -> AsyncIterator[Service]:
    database = open_database(where)
    guidelines = Guidelines([Guideline("kind", "Prefer the kinder answer.", ("tone", "truth"))])
    people = PeopleDesk(database, guidelines=guidelines, settings=PeopleSettings(mixture=Mixture()))
    desk = LabelingDesk(database, {}, people=people)
    host = Host("labeling", ServerSettings("127.0.0.1:0", tokens=Tokens.named(tokens)), CollectorRegistry())
    servicer = LabelingServicer(desk, LabelingMetrics(CollectorRegistry()))
    labeling_pb2_grpc.add_LabelingServiceServicer_to_server(servicer, host.server)
    port = host.bind()
    serving = asyncio.create_task(host.run(["iterpo.v1.LabelingService"], drain=servicer.drain))
    await asyncio.sleep(0.1)
    yield Service(f"127.0.0.1:{port}", desk)
    host.stop()
    await asyncio.wait_for(serving, WAIT)
    await asyncio.to_thread(desk.close)
    database.close()


@pytest.fixture
async def service(place: Place) -> AsyncIterator[Service]:
    async for made in serve(place("feedback.db"), {}):
        yield made


@pytest.fixture
async def guarded(place: Place) -> AsyncIterator[Service]:
    async for made in serve(place("feedback.db"), TOKENS):
        yield made


class Stream:
    """One raw connection; `read` fails rather than hangs."""

    def __init__(self, address: str, token: str = "") -> None:
        self._channel = grpc.aio.insecure_channel(address)
        metadata = [("authorization", f"Bearer {token}")] if token else None
        self.call = labeling_pb2_grpc.LabelingServiceStub(self._channel).Annotate(metadata=metadata)

    async def start(self, annotator: str = "ann", **start: Any) -> pb.AnnotateResponse:
        await self.call.write(pb.AnnotateRequest(start=pb.AnnotateStart(annotator=annotator, **start)))
        return await self.read()

    async def read(self) -> pb.AnnotateResponse:
        return await asyncio.wait_for(self.call.read(), WAIT)

    async def read_until(self, enough: Any) -> list[pb.AnnotateResponse]:
        found = []
        while not found or not enough(found[-1]):
            found.append(await self.read())
        return found

    async def label(self, *leases: pb.Lease, request_ids: list[str] | None = None, **label: Any) -> None:
        given = {"presented_outcome": types_pb2.OUTCOME_FIRST} | label
        names = request_ids or [f"label-{lease.lease_id}" for lease in leases]
        messages = [
            pb.LabelSubmission(request_id=name, lease_id=lease.lease_id, **given)
            for name, lease in zip(names, leases, strict=True)
        ]
        await self.call.write(pb.AnnotateRequest(labels=pb.AnnotateLabels(labels=messages)))

    async def reason(self) -> str:
        """Why the server ended the stream."""
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await self.read() is not grpc.aio.EOF:
                continue
        for detail in rpc_status.from_call(ended.value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
        return ""

    async def close(self) -> None:
        self.call.cancel()
        await self._channel.close()


async def test_the_server_pushes_as_many_tasks_as_there_is_credit_and_one_more_for_each_label(service: Service) -> None:
    service.ask(5)
    stream = Stream(service.address)
    first = await stream.start(credit=2)
    leases = list(first.leases) or list((await stream.read()).leases)
    assert len(leases) == 2

    await stream.label(leases[0])
    answer = await stream.read()

    assert [(r.accepted, r.request_id) for r in answer.results] == [(True, f"label-{leases[0].lease_id}")]
    assert len(answer.leases) == 1
    await stream.close()


async def test_a_label_is_acknowledged_only_after_its_commit(service: Service) -> None:
    """At the moment of the acknowledgement the event is there for others to read."""
    service.ask(1)
    stream = Stream(service.address)
    await stream.start()
    (lease,) = (await stream.read()).leases
    await stream.label(lease)
    (result,) = (await stream.read()).results
    assert [label.label_id for label in service.labels()] == [result.event_id]
    await stream.close()


async def test_a_task_that_opens_later_is_pushed_at_once(service: Service) -> None:
    stream = Stream(service.address)
    await stream.start()
    await stream.read_until(lambda r: r.HasField("open_tasks"))
    service.ask(1)
    (lease,) = (await asyncio.wait_for(stream.read_until(lambda r: r.leases), SOON))[-1].leases
    assert lease.task.first.text in ("left", "right")
    await stream.close()


async def test_nothing_in_a_lease_tells_policies_or_gold_apart(service: Service) -> None:
    service.ask(1)
    stream = Stream(service.address)
    await stream.start()
    (lease,) = (await stream.read()).leases
    for answer in (lease.task.first, lease.task.second):
        assert (answer.policy_version, answer.policy_digest, list(answer.logprobs), list(answer.token_ids)) == (
            0,
            "",
            [],
            [],
        )
    assert (lease.task.kind, lease.task.gold, lease.task.run_id) == (types_pb2.TASK_KIND_COMPARISON, 0, "")
    await stream.close()


async def test_a_broken_connection_goes_on_with_its_own_tasks_and_counts_repeated_labels_once(service: Service) -> None:
    service.ask(3)
    broken = Stream(service.address)
    await broken.start(credit=2)
    leases = (await broken.read()).leases
    await broken.label(leases[0])
    await broken.read()
    await broken.close()

    again = Stream(service.address)
    resumed = (await again.start(credit=2)).leases
    await again.label(leases[0])  # its acknowledgement might have been lost
    answers = await again.read_until(lambda r: r.results)

    assert leases[1].lease_id in [lease.lease_id for lease in resumed]
    assert [(r.accepted, r.duplicate) for r in answers[-1].results] == [(True, True)]
    assert len(service.labels()) == 1
    await again.close()


async def test_each_label_of_a_message_is_decided_for_itself(service: Service) -> None:
    service.ask(2)
    stream = Stream(service.address)
    await stream.start(credit=2)
    one, two = (await stream.read()).leases
    await stream.label(one, one, two, request_ids=["x", "y", "z"])
    await stream.label(two, request_ids=["x"], presented_outcome=types_pb2.OUTCOME_TIE)
    await stream.label(two, request_ids=["w"], strength=7)
    found: dict[str, list[str]] = {}
    while sum(map(len, found.values())) < 5:
        for result in (await stream.read()).results:
            found.setdefault(result.request_id, []).append(result.refused_reason)
    assert found == {"x": ["", "REQUEST_ID_REUSED"], "y": ["ALREADY_LABELLED"], "z": [""], "w": ["OUT_OF_RANGE"]}
    await stream.close()


async def test_heartbeats_extensions_and_releases_are_answered(service: Service) -> None:
    service.ask(2)
    stream = Stream(service.address)
    await stream.start(lease_seconds=60)
    (lease,) = (await stream.read()).leases
    await stream.call.write(pb.AnnotateRequest(heartbeat=pb.AnnotateHeartbeat(number=7)))
    assert (await stream.read()).heartbeat.number == 7
    extend = pb.ExtendLeaseRequest(lease_id=lease.lease_id, lease_seconds=600)
    await stream.call.write(pb.AnnotateRequest(extend=extend))
    (end,) = (await stream.read()).extended
    assert end.expires_at_unix_seconds > lease.expires_at_unix_seconds + 500
    await stream.call.write(pb.AnnotateRequest(release=pb.ReleaseTaskRequest(lease_id=lease.lease_id, reason="broken")))
    answers = await stream.read_until(lambda r: r.leases)
    assert [lease.lease_id] in [list(r.released_lease_ids) for r in answers]
    assert answers[-1].leases[0].task.task_id != lease.task.task_id
    assert [(e.release.annotator, e.release.reason) for e in service.events() if e.release] == [("ann", "broken")]
    await stream.close()


async def test_aspects_of_the_guideline_are_rated_in_the_presented_order(service: Service) -> None:
    service.desk.plan = type(service.desk.plan)(guideline="kind")
    service.desk.record("run", "people", [group("left", "right")], "r").result(WAIT)
    stream = Stream(service.address)
    await stream.start()
    (lease,) = (await stream.read()).leases
    assert (lease.guideline.text, list(lease.guideline.aspects)) == ("Prefer the kinder answer.", ["tone", "truth"])
    await stream.label(lease, request_ids=["bad"], presented_aspects={"smell": types_pb2.OUTCOME_FIRST})
    assert (await stream.read()).results[0].refused_reason == "UNKNOWN_ASPECT"
    await stream.label(lease, presented_aspects={"tone": types_pb2.OUTCOME_FIRST})
    await stream.read()
    (label,) = service.labels()
    presented_first = Outcome.SECOND if lease.swapped else Outcome.FIRST
    assert label.aspects == {"tone": presented_first}
    assert label.guideline_version == lease.guideline.version != ""
    await stream.close()


async def test_a_stream_must_start_with_a_start(service: Service) -> None:
    stream = Stream(service.address)
    await stream.call.write(pb.AnnotateRequest(heartbeat=pb.AnnotateHeartbeat(number=1)))
    assert await stream.reason() == "START_FIRST"
    await stream.close()


async def test_an_excluded_annotator_is_told_so(service: Service) -> None:
    service.ask(1)
    service.desk.leads.set_state("ann", AnnotatorState.EXCLUDED, "spam", "lead", "x").result(WAIT)
    stream = Stream(service.address)
    await stream.start()
    assert await stream.reason() == "ANNOTATOR_EXCLUDED"
    await stream.close()


async def test_a_token_bound_to_a_person_speaks_for_nobody_else(guarded: Service) -> None:
    stream = Stream(guarded.address, "a" * 20)
    await stream.call.write(pb.AnnotateRequest(start=pb.AnnotateStart(annotator="bob")))
    assert await stream.reason() == "WRONG_ANNOTATOR"
    await stream.close()

    def lease_as(token: str, name: str) -> None:
        with connect(guarded.address, token) as channel:
            LabelingClient(channel).lease(name)

    await asyncio.to_thread(lease_as, "a" * 20, "ann")
    with pytest.raises(PermissionDenied, match="belongs to 'ann'"):
        await asyncio.to_thread(lease_as, "a" * 20, "bob")
    await asyncio.to_thread(lease_as, "d" * 20, "bob")


def annotate_all(address: str, name: str, seen: Counter[str], seconds: float = 1.0) -> int:
    """Label whatever comes until nothing has come for a while; tasks seen are counted."""
    done = 0
    with connect(address) as channel, Annotation(channel, name, credit=4) as annotation:
        while (lease := annotation.next(seconds)) is not None:
            seen[f"{name}/{lease.task.task_id}"] += 1
            annotation.label(lease, Outcome.FIRST if hash(lease.lease_id) % 2 else Outcome.SECOND)
            done += 1
    return done


async def test_fifty_racing_streams_neither_overfill_a_task_nor_show_it_twice(service: Service) -> None:
    service.ask(120, required=2)
    seen: Counter[str] = Counter()
    people = [asyncio.to_thread(annotate_all, service.address, f"person-{i}", seen) for i in range(50)]
    done = await asyncio.wait_for(asyncio.gather(*people), 60)
    labels = service.labels()
    assert sum(done) == len(labels) == 240
    assert set(Counter(label.task_id for label in labels).values()) == {2}
    assert max(seen.values()) == 1
    assert len({(label.task_id, label.annotator) for label in labels}) == 240


def test_a_client_s_stream_survives_kill_9_of_the_server_and_every_label_is_there_once(tmp_path: Path) -> None:
    config, address = write_config(tmp_path, "gold_share = 0.0\nrepeat_share = 0.0\n")
    groups = [group("left", "right", group_id=f"g{i}") for i in range(40)]
    with labeling_process(config, address, tmp_path / "log") as (process, client):
        client.record("run", "people", groups, "r")
        results: list[str] = []
        with connect(address) as channel:
            listen = lambda request_id, result: results.append(result.event_id)  # noqa: E731 - one word to the client
            with Annotation(channel, "ann", credit=3, on_result=listen) as annotation:
                for number in range(20):
                    annotation.label(annotation.next(WAIT), Outcome.FIRST if number % 2 else Outcome.SECOND)
                process.kill()
                process.wait(WAIT)
                with labeling_process(config, address, tmp_path / "log") as (_, again):
                    for number in range(20):
                        annotation.label(annotation.next(WAIT), Outcome.FIRST if number % 2 else Outcome.SECOND)
                    annotation.flush()
                    labels = [e.label for e in again.stream("run", 0, 0.5) if e.label]
    assert sorted({label.task_id for label in labels}) == sorted(label.task_id for label in labels)
    assert len(labels) == 40
    assert {label.label_id for label in labels} == set(results)


async def test_what_the_server_refuses_reaches_the_client_as_its_error(service: Service) -> None:
    service.ask(1)
    service.desk.leads.set_state("ann", AnnotatorState.EXCLUDED, "spam", "lead", "x").result(WAIT)

    def annotate() -> None:
        with connect(service.address) as channel, Annotation(channel, "ann") as annotation:
            annotation.next(WAIT)

    with pytest.raises(WrongState) as refused:
        await asyncio.to_thread(annotate)
    assert refused.value.reason == "ANNOTATOR_EXCLUDED"
    with pytest.raises(InvalidInput):
        await asyncio.to_thread(lambda: annotate_all(service.address, "", Counter()))
