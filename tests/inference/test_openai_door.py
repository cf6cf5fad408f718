"""The OpenAI-compatible door with an engine of three lines: shapes, refusals, limits, and what feedback can name."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from iterpo.errors import NotFound, ResourceExhausted
from iterpo.types import Completion, FinishReason, Group, Message, Prompt
from services.audit import Audit
from services.auth import TokenGuard
from services.inference.admission import Admission, Quota
from services.inference.answering import Answering
from services.inference.delivery import Source
from services.inference.engine import Chunk
from services.inference.metrics import InferenceMetrics
from services.inference.openai.app import OpenAiDoor
from services.inference.openai.feedback import Feedback
from services.inference.openai.served import Served
from services.tokens import Tokens
from tests.inference.test_registry import FakeEngine, serve, started

TOKEN = "client-token-of-some-length"
JSON = {"content-type": "application/json"}
WORDS = ["Hello", " there", "!"]
HI = [{"role": "user", "content": "Hi"}]


@dataclass
class TalkingEngine(FakeEngine):
    """Says three words, one a chunk; token ids 1 to 3."""

    pause: asyncio.Event | None = None
    seeds: list = field(default_factory=list)
    settings: list = field(default_factory=list)
    stopped: int = 0

    async def generate(self, prompt_ids, settings, seed, lora, stream, likeliest=0):
        self.seeds.append(seed)
        self.settings.append(settings)
        try:
            for number, word in enumerate(WORDS[: settings.max_tokens]):
                if number and self.pause is not None:
                    await self.pause.wait()
                last = number == min(len(WORDS), settings.max_tokens) - 1
                reason = FinishReason.STOP if number == len(WORDS) - 1 else FinishReason.LENGTH
                top = (tuple((t, -0.1 * t) for t in range(1, 1 + likeliest)),) if likeliest else ()
                yield Chunk(word, (number + 1,), (-0.5,), reason if last else None, top)
        finally:
            self.stopped += 1


class Letters:
    """A tokenizer of letters; a chat is its last message."""

    def __len__(self) -> int:
        return 0x110000

    def __call__(self, text: str) -> Any:
        return type("Encoding", (), {"input_ids": [ord(c) for c in text]})

    def apply_chat_template(self, chat, add_generation_prompt, return_dict) -> list[int]:
        return [ord(c) for c in chat[-1]["content"]]

    def decode(self, ids: list[int]) -> str:
        return "".join(f"<{i}>" for i in ids)


class Labels:
    """The labeling service, as far as feedback goes."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.free = threading.Event()
        """Until it is set, answers are waited for."""
        self.free.set()

    def record(self, *call: Any) -> None:
        self.calls.append(("record", *call))

    def __getattr__(self, name: str) -> Any:
        def said(*call: Any) -> list[str]:
            self.calls.append((name, *call))
            self.free.wait(10)
            return ["event"]

        return said


@dataclass
class Door:
    http: httpx.AsyncClient
    engine: TalkingEngine
    labels: Labels
    admission: Admission
    registry: Any
    door: OpenAiDoor

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json={"messages": HI, **fields})


@pytest.fixture
async def made(tmp_path) -> AsyncIterator[Any]:
    clients: list[httpx.AsyncClient] = []
    audits: list[Audit] = []

    async def build(queue: int = 8, tokens: dict[str, str] | None = None, quota: int = 0, deadline: float = 30) -> Door:
        folder = tmp_path / f"again-{len(clients)}" if clients else tmp_path
        folder.mkdir(exist_ok=True)
        registry, delivery = await started(folder)
        engine = TalkingEngine({})
        delivery.source = lambda _version: Source(engine)
        metrics = InferenceMetrics(CollectorRegistry())
        admission = Admission(2, queue)
        answering = Answering(registry, Letters(), 64, metrics, admission)
        labels = Labels()
        feedback = Feedback(lambda: labels)
        ready = lambda: True  # noqa: E731
        guard, audit = TokenGuard(Tokens.named(tokens or {})), Audit(folder / "audit.jsonl")
        audits.append(audit)
        door = OpenAiDoor(answering, registry, "tiny", guard, Quota(quota), metrics, deadline, feedback, ready, audit)
        transport = httpx.ASGITransport(door.app())
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=JSON))
        return Door(clients[-1], engine, labels, admission, registry, door)

    yield build
    for client in clients:
        await client.aclose()
    for audit in audits:
        audit.close()


def events(text: str) -> list[Any]:
    parts = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


async def test_a_chat_is_answered_with_its_policy_version(made) -> None:
    door = await made()
    answer = (await door.chat()).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello there!", "refusal": None}
    assert (choice["finish_reason"], choice["index"]) == ("stop", 0)
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert (answer["object"], answer["model"], answer["policy_version"]) == ("chat.completion", "v0", 0)
    assert choice["completion_id"] == answer["id"] + "-0"


async def test_a_stream_is_the_same_answer_in_parts_and_usage_comes_last_when_asked_for(made) -> None:
    door = await made()
    response = await door.chat(stream=True, stream_options={"include_usage": True}, n=2)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(response.text)
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 6)
    for number in range(2):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == number]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"]["content"] for c in mine) == "Hello there!"
        assert [c["finish_reason"] for c in mine] == [None, None, None, "stop"]


async def test_n_answers_have_seeds_of_their_own_and_the_same_request_has_the_same(made) -> None:
    door = await made()
    answer = (await door.chat(n=3, seed=7, max_tokens=2)).json()
    assert [c["finish_reason"] for c in answer["choices"]] == ["length"] * 3
    first, door.engine.seeds = sorted(door.engine.seeds), []
    assert len(set(first)) == 3
    await door.chat(n=3, seed=7, max_tokens=2)
    assert sorted(door.engine.seeds) == first


async def test_logprobs_show_the_chosen_token_and_the_likeliest_ones(made) -> None:
    door = await made()
    shown = (await door.chat(logprobs=True, top_logprobs=2)).json()["choices"][0]["logprobs"]["content"]
    assert [(t["token"], t["logprob"]) for t in shown] == [("<1>", -0.5), ("<2>", -0.5), ("<3>", -0.5)]
    assert [t["token"] for t in shown[0]["top_logprobs"]] == ["<1>", "<2>"]
    text = (await door.http.post("/v1/completions", json={"prompt": "Once", "logprobs": 1})).json()["choices"][0]
    assert text["logprobs"]["token_logprobs"] == [-0.5] * 3
    assert text["logprobs"]["top_logprobs"][0] == {"<1>": -0.1}
    assert text["logprobs"]["text_offset"] == [0, 3, 6]


async def test_texts_and_token_ids_are_gone_on_with(made) -> None:
    door = await made()
    answer = (await door.http.post("/v1/completions", json={"prompt": ["Once", "Then"], "n": 2})).json()
    assert (answer["object"], [c["text"] for c in answer["choices"]]) == ("text_completion", ["Hello there!"] * 4)
    assert answer["usage"]["prompt_tokens"] == 8
    tokens = (await door.http.post("/v1/completions", json={"prompt": [5, 6]})).json()
    assert tokens["usage"]["prompt_tokens"] == 2


async def test_models_are_versions_and_aliases(made, tmp_path) -> None:
    door = await made()
    door.registry._delivery.source = type(door.registry._delivery).source.__get__(door.registry._delivery)
    await serve(door.registry, tmp_path, 1)
    listed = (await door.http.get("/v1/models")).json()["data"]
    assert [m["id"] for m in listed] == ["tiny", "serving", "previous", "base", "v0", "v1"]
    assert [m["policy_version"] for m in listed] == [1, 1, 0, 0, 0, 1]
    assert (await door.http.get("/v1/models/v1")).json()["state"] == "serving"
    assert (await door.http.get("/v1/models/v9")).status_code == 404
    unknown = await door.chat(model="gpt-4")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_split_sends_a_user_always_to_the_same_version(made, tmp_path) -> None:
    door = await made()
    delivery = door.registry._delivery
    talking, delivery.source = delivery.source, type(delivery).source.__get__(delivery)  # the proof needs real answers
    await serve(door.registry, tmp_path, 1)
    delivery.source = talking
    went = [(await door.chat(model="serving=1,base=1", user=f"u{n % 20}")).json()["policy_version"] for n in range(40)]
    assert went[:20] == went[20:]
    assert set(went) == {0, 1}
    bad = await door.chat(model="serving=x")
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_split")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"temperatur": 1}, "temperatur"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_generated(made, fields: dict[str, Any], param: str) -> None:
    door = await made()
    refused = await door.chat(**fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not door.engine.seeds


async def test_what_asks_for_nothing_is_taken(made) -> None:
    door = await made()
    neutral = {"frequency_penalty": 0, "tools": [], "user": "u1", "response_format": {"type": "text"}, "stop": None}
    assert (await door.chat(**neutral)).status_code == 200
    parts = [{"type": "text", "text": "Hi"}]
    assert (await door.chat(messages=[{"role": "developer", "content": parts}])).status_code == 200


async def test_bodies_that_cannot_be_read_are_refused(made) -> None:
    door = await made()
    for content, code in ((b"{", "not_json"), (b"[]", "not_json"), (b" " * (4 * 1024 * 1024 + 1), "body_too_large")):
        refused = await door.http.post("/v1/chat/completions", content=content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    long = await door.chat(max_tokens=63)
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_exceeded")
    assert (await door.http.get("/v1/embeddings")).json()["error"]["code"] == "unknown_url"
    assert (await door.http.get("/v1/chat/completions")).status_code == 404


async def test_foreign_sites_cannot_use_the_browser_of_somebody_here(made) -> None:
    door = await made()
    plain = {"content-type": "text/plain"}
    refused = await door.http.post("/v1/feedback", content=json.dumps({"messages": HI}), headers=plain)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_json")
    rebound = await door.http.get("/v1/models", headers={"host": "evil.example"})
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "foreign_host")
    with_tokens = await made(tokens={TOKEN: "client"})
    named = {"host": "iterpo.example", "authorization": f"Bearer {TOKEN}"}
    assert (await with_tokens.http.get("/v1/models", headers=named)).status_code == 200


async def test_a_full_queue_says_when_to_come_back_and_has_room_again_afterwards(made) -> None:
    door = await made(queue=1)
    door.engine.pause = asyncio.Event()
    waiting = [asyncio.create_task(door.chat()) for _ in range(3)]
    while door.admission.inside < 3:
        await asyncio.sleep(0.01)
    refused = await door.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await door.chat(n=4)).json()["error"]["code"] == "too_many_answers"
    door.engine.pause.set()
    assert [r.status_code for r in await asyncio.gather(*waiting)] == [200] * 3
    assert door.admission.inside == 0
    assert (await door.chat()).status_code == 200


async def test_an_answer_past_its_deadline_is_ended_and_its_place_is_free(made) -> None:
    door = await made(deadline=0.1)
    door.engine.pause = asyncio.Event()
    late = await door.chat()
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert (door.admission.inside, door.engine.stopped) == (0, 1)
    streamed = events((await door.chat(stream=True)).text)
    assert streamed[-1]["error"]["code"] == "deadline_exceeded", "in a stream it is the last event, and no [DONE]"


async def test_tokens_are_asked_for_and_roles_and_quotas_kept(made) -> None:
    door = await made(tokens={TOKEN: "client", TOKEN + "-2": "client", TOKEN + "-3": "annotator"}, quota=4)
    assert (await door.chat()).status_code == 401

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def ask(token: str) -> httpx.Response:
        return await door.http.post("/v1/chat/completions", json={"messages": HI}, headers=bearer(token))

    assert (await ask("nobody")).json()["error"]["code"] == "unknown_token"
    assert (await ask(TOKEN + "-3")).status_code == 403
    assert (await ask(TOKEN)).status_code == 200  # five tokens: overdrawn by one
    empty = await ask(TOKEN)
    assert (empty.status_code, empty.json()["error"]["code"]) == (429, "quota_exceeded")
    assert (await ask(TOKEN + "-2")).status_code == 200, "each token has a quota of its own"
    assert (await door.http.get("/v1/models")).status_code == 401


async def test_feedback_names_an_answer_which_is_recorded_as_it_was_given(made) -> None:
    door = await made()
    answer = (await door.chat(n=2)).json()
    first, second = (c["completion_id"] for c in answer["choices"])
    said = {"completion_id": second, "over": first, "user": "u1", "strength": 2, "request_id": "r1"}
    assert (await door.http.post("/v1/feedback", json=said)).json() == {"object": "feedback", "event_ids": ["event"]}
    (_, run_id, labeler, (group,), _), kept = door.labels.calls
    assert (run_id, labeler) == ("served", "none")
    assert [(c.completion_id, c.text, c.token_ids) for c in group.completions] == [
        (first, "Hello there!", (1, 2, 3)),
        (second, "Hello there!", (1, 2, 3)),
    ]
    assert group.prompt.messages == (Message("user", "Hi"),)
    assert kept == ("kept", "feedback", "u1", None, second, first, "r1", 2)
    await door.http.post("/v1/feedback", json={"completion_id": first, "user": "u1", "thumb": "up", "run_id": "mine"})
    assert door.labels.calls[-1][:6] == ("thumb", "mine", "u1", None, first, True)
    await door.http.post("/v1/feedback", json={"completion_id": first, "user": "u1", "edited": "Dear friend!"})
    assert door.labels.calls[-1][:6] == ("edited", "feedback", "u1", None, first, "Dear friend!")


async def test_the_audit_log_says_whose_token_gave_feedback_and_not_what_was_said(made, tmp_path) -> None:
    door = await made(tokens={TOKEN: "client"})
    mine = {"authorization": f"Bearer {TOKEN}"}
    answer = (await door.http.post("/v1/chat/completions", json={"messages": HI}, headers=mine)).json()
    said = {"completion_id": answer["choices"][0]["completion_id"], "user": "u1", "edited": "Dear friend!"}
    await door.http.post("/v1/feedback", json=said, headers=mine)
    await door.http.post("/v1/feedback", json=said)
    await door.http.post("/v1/feedback", content="{}", headers={"content-type": "text/plain"})
    door.labels.free.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(door.http.post("/v1/feedback", json=said, headers=mine), 0.3)
    door.labels.free.set()
    text = (tmp_path / "audit.jsonl").read_text()
    given, *refused, broken_off = map(json.loads, text.splitlines())  # the chat changed nothing
    assert (given["what"], given["outcome"], given["role"]) == ("http /v1/feedback", "200", "client")
    assert [(line["outcome"], "role" in line) for line in refused] == [("401", False), ("400", False)]
    assert (broken_off["outcome"], broken_off["role"]) == ("CANCELLED", "client")
    assert TOKEN not in text
    assert "friend" not in text


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"user": "u1", "thumb": "up"}, 400, "invalid_field"),
        ({"completion_id": "chatcmpl-x-0", "user": "u1", "thumb": "up"}, 404, "not_served"),
        ({"completion_id": "chatcmpl-x-0", "user": "u1"}, 400, "invalid_field"),
        ({"completion_id": "chatcmpl-x-0", "user": "u1", "thumb": "up", "edited": "x"}, 400, "invalid_field"),
        ({"completion_id": "chatcmpl-x-0", "user": "u1", "thumb": "sideways"}, 400, "invalid_field"),
        ({"completion_id": "chatcmpl-x-0", "user": "judge/llm", "thumb": "up"}, 403, "machine_name"),
        ({"completion_id": "chatcmpl-x-0", "user": "u1", "thumb": "up", "strength": 9}, 400, "invalid_field"),
    ],
)
async def test_feedback_that_cannot_be_used_reaches_nobody(made, said, status: int, code: str) -> None:
    door = await made()
    refused = await door.http.post("/v1/feedback", json=said)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert not door.labels.calls


async def test_an_unfinished_answer_cannot_be_named(made) -> None:
    door = await made(deadline=0.1)
    door.engine.pause = asyncio.Event()
    (first, *_) = events((await door.chat(stream=True)).text)
    said = {"completion_id": first["choices"][0]["completion_id"], "user": "u1", "thumb": "up"}
    assert (await door.http.post("/v1/feedback", json=said)).status_code == 404


def test_the_oldest_answers_are_forgotten_first() -> None:
    def answered(name: str) -> Group:
        answer = Completion(f"{name}-0", name, name, "x" * 40, (), (), (), FinishReason.STOP, 0, "")
        return Group(name, Prompt(name, (Message("user", "y" * 10),)), (answer,))

    served = Served(most_characters=120)
    for name in ("a", "b", "c"):
        served.remember(answered(name))
    assert served.group_of("c-0").group_id == "c"
    with pytest.raises(NotFound, match="a-0"):
        served.group_of("a-0")


def test_the_wait_grows_with_the_queue_and_with_what_answers_take() -> None:
    clock = [0.0]
    admission = Admission(2, 100, lambda: clock[0])
    assert admission.wait_seconds == 1
    admission.inside = 8
    assert admission.wait_seconds == 4, "seven answers before a place is free, two at a time, a second each"


def test_a_quota_fills_evenly_and_may_be_overdrawn_once() -> None:
    """60 tokens a minute: after 150 at once, 90 below nothing, a minute and a half passes."""
    clock = [0.0]
    quota = Quota(60, lambda: clock[0])
    quota.check("a")
    quota.use("a", 150)
    with pytest.raises(ResourceExhausted) as refused:
        quota.check("a")
    assert refused.value.retry_seconds == 90
    quota.check("b")
    clock[0] = 91.0
    quota.check("a")
    Quota(0).use("a", 10**9)
    Quota(0).check("a")
