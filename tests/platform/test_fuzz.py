"""Whatever is sent, nothing crashes: no INTERNAL or UNKNOWN of gRPC, no 5xx of HTTP, no exception but our own of files.

ITERPO_FUZZ says how many inputs each test draws; an incident's id in an answer means a traceback in the log.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from prometheus_client import CollectorRegistry

from iterpo import prompts
from iterpo.config import Settings
from iterpo.errors import InvalidConfig, InvalidInput, IterpoError
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.imports import FORMATS, read_rows
from iterpo.learner.ledger import Ledger
from iterpo.store.check import check
from iterpo.store.database import open_database
from iterpo.store.whole import reading
from iterpo.tokens import read_tokens
from iterpo.v1 import labeling_pb2, labeling_pb2_grpc, learner_pb2, learner_pb2_grpc
from services.host import Host, ServerSettings
from services.labeling.metrics import LabelingMetrics
from services.labeling.page.app import page_app
from services.labeling.servicer import LabelingServicer
from services.learner.assembly import Assembly
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager
from services.learner.servicer import LearnerServicer
from services.tokens import Tokens
from tests.conftest import Place
from tests.labeling.builders import group
from tests.labeling.fakes import RuleLabeler
from tests.platform.fuzz import INPUTS, fill, json_value, mutated

BAD = {"INTERNAL", "UNKNOWN", "DATA_LOSS"}
pytestmark = pytest.mark.timeout(max(120, INPUTS // 50))


@pytest.fixture
async def address(place: Place, tmp_path: Path) -> AsyncIterator[str]:
    """A real labeling service and a real learner's, in this process; the store is checked at the end."""
    database = open_database(place("feedback.db"))
    desk = LabelingDesk(database, {"rule": RuleLabeler(lambda text: 1.0)})
    desk.start()
    desk.record("r1", "people", [group("a", "b")], "first").result(20)
    host = Host("labeling", ServerSettings(), CollectorRegistry())
    servicer = LabelingServicer(desk, LabelingMetrics(CollectorRegistry()))
    labeling_pb2_grpc.add_LabelingServiceServicer_to_server(servicer, host.server)
    ledger = Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, Assembly(Settings(data_dir=tmp_path)), LearnerMetrics(CollectorRegistry()))
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(runs), host.server)
    port = host.bind()
    task = asyncio.create_task(host.run(["iterpo.v1.LabelingService"], drain=servicer.drain))
    yield f"127.0.0.1:{port}"
    host.stop()
    await asyncio.wait_for(task, 30)
    await runs.drain()
    await asyncio.to_thread(desk.close)
    database.close()
    ledger.close()
    with reading(str(place("feedback.db"))) as whole:
        assert [finding.law for finding in check(whole, time.time()) if finding.broken] == []


async def sent(channel: grpc.aio.Channel, path: str, method: Any, requests: list[bytes]) -> str:
    shape = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    call = getattr(channel, shape)(path)
    answer = call(iter(requests) if method.client_streaming else requests[0], timeout=0.5)
    try:
        if method.server_streaming:
            async for _ in answer:
                break
            answer.cancel()
        else:
            await answer
    except grpc.aio.AioRpcError as error:
        # The caller's own library, when the server refused a stream of which it was still sending.
        return "REFUSED_EARLY" if error.details() == "Internal error from Core" else error.code().name
    except asyncio.CancelledError:
        return "CANCELLED"
    return "OK"


@pytest.mark.parametrize("module", [labeling_pb2, learner_pb2], ids=["labeling", "learner"])
async def test_no_message_makes_a_service_fail_and_none_breaks_a_law_of_the_store(address: str, module: Any) -> None:
    [service] = module.DESCRIPTOR.services_by_name.values()
    draw, found = random.Random(7), Counter[str]()
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(INPUTS):
            method = draw.choice(service.methods)
            kind = message_factory.GetMessageClass(method.input_type)
            requests = [fill(kind(), draw).SerializeToString() for _ in range(draw.choice((1, 1, 3)))]
            if draw.random() < 0.3:
                requests = [mutated(request, draw) for request in requests]
            status = await sent(channel, f"/{service.full_name}/{method.name}", method, requests)
            found[status] += 1
            assert status not in BAD, (method.name, requests)
        asked = service.methods_by_name["ListLabelers" if module is labeling_pb2 else "ListRuns"]
        assert await sent(channel, f"/{service.full_name}/{asked.name}", asked, [b""]) == "OK"
    assert found["INVALID_ARGUMENT"] > INPUTS / 10


async def test_no_request_makes_a_page_fail(tmp_path: Path) -> None:
    database = open_database(tmp_path / "feedback.db")
    desk = LabelingDesk(database, {})
    desk.start()
    desk.record("r1", "people", [group("a", "b", group_id=f"g{i}") for i in range(50)], "first").result(20)
    app = page_app(desk.people, desk.leads, Tokens(), b"key", False)
    draw, found = random.Random(7), Counter[int]()
    paths = sorted(
        {route.path for route in app.routes} | {"/", "/api/", "/static/../../etc/passwd", "/%2e%2e/", "/api/%00"}
    )
    keys = (
        "request_id",
        "lease_id",
        "outcome",
        "name",
        "token",
        "strength",
        "rationale",
        "seconds",
        "event_id",
        "state",
        "annotator",
    )
    ours = {"x-iterpo-page": "1", "content-type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:9202") as browser:
        await browser.post("/api/sign-in", content=b'{"name": "ann"}', headers=ours)
        for _ in range(INPUTS):
            body = json.dumps(json_value(draw, keys)).encode()
            if draw.random() < 0.2:
                body = mutated(body, draw)
            query = f"?{draw.choice(keys)}={draw.choice(('', 'a', '-1', '9' * 40, '%00', '%f0%28'))}"
            path = draw.choice(paths).replace("{name}", draw.choice(("annotate.js", "..", "%2e%2e%2fetc", "a" * 300)))
            acts = path.startswith("/api/") and draw.random() < 0.8
            method = "POST" if acts else draw.choice(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"))
            if path == "/api/sign-out":
                continue
            response = await browser.request(method, path + query, content=body, headers=ours)
            found[response.status_code] += 1
            assert response.status_code < 500, (method, path, query, body, response.text)
    await asyncio.to_thread(desk.close)
    database.close()
    assert found[400] > INPUTS / 10


@pytest.mark.parametrize("name", FORMATS)
def test_no_file_makes_an_import_fail_but_in_words(name: str) -> None:
    draw = random.Random(name)
    keys = (
        "prompt",
        "chosen",
        "rejected",
        "completion",
        "label",
        "instruction",
        "completions",
        "response",
        "overall_score",
        "role",
        "content",
    )
    for _ in range(INPUTS):
        text = "\n".join(json.dumps(json_value(draw, keys)) for _ in range(draw.randrange(4)))
        if draw.random() < 0.3:
            text = mutated(text.encode(), draw).decode(errors="replace")
        try:
            read_rows(text.splitlines(), name)
        except InvalidInput:
            continue


def test_no_prompt_file_fails_but_in_words(tmp_path: Path) -> None:
    draw, path = random.Random(3), tmp_path / "prompts.jsonl"
    keys = ("prompt", "messages", "role", "content", "id", "answer", "chosen", "rejected", "values", "difficulty")
    for _ in range(INPUTS):
        data = "\n".join(json.dumps(json_value(draw, keys)) for _ in range(draw.randrange(4))).encode()
        path.write_bytes(mutated(data, draw) if draw.random() < 0.3 else data)
        try:
            prompts.read(path)
        except IterpoError:
            continue


def test_no_tokens_file_fails_but_in_words(tmp_path: Path) -> None:
    draw, path = random.Random(4), tmp_path / "tokens"
    good = b"sha256:" + b"a" * 64 + b" = annotator:ann until 2027-01-01\na-token-of-some-length = admin\n"
    for _ in range(INPUTS):
        path.write_bytes(mutated(good, draw))
        try:
            read_tokens(path)
        except InvalidConfig:
            continue
