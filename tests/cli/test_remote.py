"""The commands that talk to a running inference service, against a small one in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from iterpo.cli.main import main
from iterpo.errors import WrongState
from iterpo.v1 import inference_pb2, inference_pb2_grpc, policy_pb2, policy_pb2_grpc, types_pb2
from services.host import Host, ServerSettings

SERVICES = ("iterpo.v1.InferenceService", "iterpo.v1.PolicyService")
ESCAPE = "\x1b[2J"


class Echo(inference_pb2_grpc.InferenceServiceServicer):
    """Answers with the words it was asked, one message a word, and how many messages the conversation had."""

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[inference_pb2.GenerateResponse]:
        if request.policy == "nobody":
            raise WrongState("There is no such policy.", "Use another.")
        for word in request.messages[-1].content.split():
            yield inference_pb2.GenerateResponse(text_delta=f"{word} ")
        yield inference_pb2.GenerateResponse(
            text_delta=f"({len(request.messages)})",
            finish_reason=types_pb2.FINISH_REASON_STOP,
            policy_version=3,
            completion_tokens=4,
        )


class Policies(policy_pb2_grpc.PolicyServiceServicer):
    """Two versions; remembers what it was asked to do."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.decided: policy_pb2.PolicyVersion | None = None

    async def ListPolicies(self, request: Any, context: Any) -> policy_pb2.ListPoliciesResponse:
        versions = [
            policy_pb2.PolicyVersion(version=0, state=policy_pb2.POLICY_STATE_PREVIOUS),
            policy_pb2.PolicyVersion(version=1, state=policy_pb2.POLICY_STATE_SERVING, digest="ab" * 32, run_id="r"),
        ]
        versions += [self.decided] if self.decided else []
        return policy_pb2.ListPoliciesResponse(policies=versions, serving_version=1)

    async def PromotePolicy(self, request: Any, context: Any) -> policy_pb2.PromotePolicyResponse:
        self.requests.append(request)
        policy = policy_pb2.PolicyVersion(version=request.version, state=policy_pb2.POLICY_STATE_SERVING)
        return policy_pb2.PromotePolicyResponse(policy=policy, swap_seconds=0.25)

    async def RollbackPolicy(self, request: Any, context: Any) -> policy_pb2.RollbackPolicyResponse:
        self.requests.append(request)
        return policy_pb2.RollbackPolicyResponse(policy=policy_pb2.PolicyVersion(version=0), swap_seconds=0.125)


@dataclass
class Cli:
    """Runs `iterpo` in a thread against the server; keeps what it printed."""

    config: Path
    policies: Policies
    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = await asyncio.wait_for(asyncio.to_thread(self._run, arguments), 30)
        shown = self.capsys.readouterr()
        return code, shown.out, shown.err

    def _run(self, arguments: tuple[str, ...]) -> int:
        try:
            main([*arguments, "--config", str(self.config)])
        except SystemExit as end:
            return int(end.code or 0)
        raise AssertionError("main always exits")


@pytest.fixture
def serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    @asynccontextmanager
    async def start() -> AsyncIterator[Cli]:
        host = Host("inference", ServerSettings(), CollectorRegistry())
        policies = Policies()
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(Echo(), host.server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(policies, host.server)
        config = tmp_path / "iterpo.toml"
        away = '[labeling]\naddress = "127.0.0.1:1"\n[learner]\naddress = "127.0.0.1:2"\n'
        config.write_text(f'[inference]\naddress = "127.0.0.1:{host.bind()}"\n{away}')
        task = asyncio.create_task(host.run(SERVICES))
        try:
            yield Cli(config, policies, capsys)
        finally:
            host.stop()
            await asyncio.wait_for(task, 20)

    return start


async def test_generate_prints_the_text_as_it_comes(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        assert await iterpo("generate", "Hello there") == (0, "Hello there (1)\n", "")
        code, out, _ = await iterpo("generate", "Hi", "--system", "Be kind.", "--json")
    assert code == 0
    assert json.loads(out) == {
        "text": "Hi (2)",
        "policy_version": 3,
        "policy_digest": "",
        "finish_reason": "stop",
        "prompt_tokens": 0,
        "completion_tokens": 4,
    }


async def test_model_text_cannot_steer_the_terminal(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        _, out, _ = await iterpo("generate", f"a{ESCAPE}b")
    assert "\x1b" not in out
    assert "a\\x1b[2Jb" in out


async def test_a_refusal_of_the_server_exits_with_two(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        code, out, err = await iterpo("generate", "Hi", "--policy", "nobody")
    assert (code, out) == (2, "")
    assert err == "error: There is no such policy.\nUse another.\n"


async def test_chat_remembers_the_conversation_until_it_is_new(
    serving: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["one", "", "two", "/new", "three", "/quit", "never"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    async with serving() as iterpo:
        code, out, _ = await iterpo("chat", "--json")
    assert code == 0
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["one (1)", "two (3)", "three (1)"]


async def test_the_history_says_what_was_decided_and_why(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        _, nothing, _ = await iterpo("policies", "history")
        refused = types_pb2.GateDecision(
            promote=False,
            reasons=["KL is 9.000 nats a token, above gate.max_kl 2"],
            numbers={"kl": 9.0, "win_rate": 0.6},
        )
        iterpo.policies.decided = policy_pb2.PolicyVersion(version=7, run_id="r", decision=refused)
        _, out, _ = await iterpo("policies", "history", "--json")
        _, table, _ = await iterpo("policies", "history")
    assert "Nothing has been decided" in nothing
    (found,) = json.loads(out)
    assert (found["version"], found["decision"]["numbers"]["kl"]) == (7, 9.0)
    assert "gate.max_kl" in table
    assert "0.60" in table


async def test_policies_are_listed_with_the_serving_one_marked(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        _, out, _ = await iterpo("policies", "list", "--json")
        listed = json.loads(out)
        _, shown, _ = await iterpo("policies", "show", "1", "--json")
        code, _, err = await iterpo("policies", "show", "9")
    assert listed["serving_version"] == 1
    assert [p["state"] for p in listed["policies"]] == ["previous", "serving"]
    assert json.loads(shown)["version"] == 1
    assert code == 2
    assert "It has: 0, 1." in err


async def test_promoting_by_hand_is_recorded_as_such(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        code, out, _ = await iterpo("policies", "promote", "4", "--reason", "looked good", "--by", "ada")
        (request,) = iterpo.policies.requests
    assert code == 0
    assert out == "Version 4 serves; the swap took 250 ms.\n"
    assert request.decision.promote
    assert list(request.decision.reasons) == ["promoted by hand, by ada", "looked good"]
    assert dict(request.decision.numbers) == {"by_hand": 1.0}  # no gate's decision looks like it
    assert request.request_id


async def test_a_rollback_says_what_serves_now(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        code, out, _ = await iterpo("policies", "rollback", "--reason", "too chatty", "--json")
        (request,) = iterpo.policies.requests
    assert (code, json.loads(out)["policy"]["version"], json.loads(out)["swap_ms"]) == (0, 0, 125.0)
    assert request.reason == "too chatty"


async def test_call_reaches_a_unary_method_by_its_short_or_full_name(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        _, short, _ = await iterpo("call", "PolicyService/ListPolicies")
        _, full, _ = await iterpo("call", "iterpo.v1.PolicyService/ListPolicies", "{}")
    assert short == full
    assert json.loads(short)["serving_version"] == "1"


async def test_call_prints_a_stream_as_one_line_a_message(serving: Callable[[], Any]) -> None:
    request = json.dumps({"messages": [{"role": "user", "content": "a b"}]})
    async with serving() as iterpo:
        _, out, _ = await iterpo("call", "InferenceService/Generate", request)
    assert [json.loads(line)["text_delta"] for line in out.splitlines()] == ["a ", "b ", "(1)"]


async def test_call_lists_every_method_of_the_services_that_run(serving: Callable[[], Any]) -> None:
    async with serving() as iterpo:
        _, out, _ = await iterpo("call", "--list", "--json")
    listed = json.loads(out)
    assert "iterpo.v1.InferenceService/Sample" in listed
    assert "iterpo.v1.PolicyService/RollbackPolicy" in listed
    assert "grpc.health.v1.Health/Check" in listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["PolicyService/ListPolicys"], "Did you mean PolicyService/ListPolicies"),
        (["PolicyService/ListPolicies", "{"], "is not JSON"),
        (["PolicyService/PromotePolicy", '{"versoin": 1}'], "Its fields are: version, decision, request_id, run."),
        (["PolicyService/ListPolicies", "--address", "127.0.0.1:1"], "No service answers"),
        (["ServerReflection/ServerReflectionInfo"], "stream of requests"),
    ],
)
async def test_a_call_that_cannot_work_exits_with_two(
    serving: Callable[[], Any], arguments: list[str], words: str
) -> None:
    async with serving() as iterpo:
        code, out, err = await iterpo("call", *arguments)
    assert (code, out) == (2, "")
    assert words in err
