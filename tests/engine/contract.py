"""What both ways of delivery promise, through gRPC: test_merged.py and test_adapter.py inherit it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from iterpo.demo.traffic import Traffic
from iterpo.errors import InvalidInput, NotFound, PolicyRejected, WrongState
from iterpo.policies import manifest
from iterpo.types import FinishReason, SamplingSettings
from iterpo.v1 import types_pb2
from tests.engine.served import MAX_MODEL_LEN, YES, Served, chat, greedy, mean_difference, prompts

FREED_SECONDS = 10.0
"""A cancelled call has left the engine within this time; a step takes milliseconds."""


def ask(served: Served, text: str, settings: SamplingSettings, policy: str = "serving") -> tuple[list[int], set[int]]:
    """(token ids, versions that they came from) of one whole stream."""
    ids, versions = [], set()
    for part in served.inference.generate(chat(text), settings, policy):
        ids += part.token_ids
        versions.add(part.policy_version)
    return ids, versions


class Contract:
    near_tie: float
    """Nats: where transformers prefers its own token by less than this, the engine may choose another."""
    noise: float
    """Nats a token: mean difference of log-probs between two engines with identical weights in this precision."""

    def test_greedy_answers_are_those_of_transformers_with_the_same_adapter(self, served, reference):
        version = served.serve(seed=1)
        transformers, other = reference(version), reference(served.publish(seed=2)[0])
        compared = differently = 0
        for prompt in prompts():
            ids, versions = ask(served, prompt.text, greedy())
            prompt_ids = served.learner.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt.text}], add_generation_prompt=True, return_dict=False
            )
            assert versions == {version}
            choices, preferred = transformers.greedy(prompt_ids, ids)
            apart = next((t for t, (a, b) in enumerate(zip(choices, ids, strict=True)) if a != b), len(ids))
            assert apart == len(ids) or preferred[apart] < self.near_tie
            compared += apart
            differently += other.greedy(prompt_ids, ids)[0] != ids
        assert compared >= 48, "near-ties came too early to compare anything"
        assert differently, "another adapter answers the same: the comparison shows nothing"

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_sampled_logprobs_are_those_of_the_distribution_that_was_sampled(self, served, reference, temperature):
        version = served.serve(seed=3)
        transformers = reference(version)
        settings = SamplingSettings(temperature=temperature, max_tokens=16, seed=5)
        answers = [c for group in served.inference.sample(prompts(3), 2, settings) for c in group]
        expected = [transformers.logprobs(c.prompt_token_ids, c.token_ids, temperature) for c in answers]
        given = [list(c.logprobs) for c in answers]
        assert mean_difference(given, expected) < self.noise
        unscaled = [transformers.logprobs(c.prompt_token_ids, c.token_ids, 1.0) for c in answers]
        if temperature != 1.0:
            assert mean_difference(given, unscaled) > 1.3 * self.noise

    def test_a_completion_says_what_it_is(self, served):
        version = served.serve(seed=4)
        ((completion,),) = served.inference.sample(prompts(1), 1, greedy(4))
        assert (completion.prompt_id, completion.policy_version) == ("q0", version)
        assert completion.policy_digest == next(p.digest for p in served.registry.versions() if p.version == version)
        assert completion.finish_reason is FinishReason.LENGTH
        assert len(completion.token_ids) == len(completion.logprobs) == 4
        assert served.learner.tokenizer.decode(completion.token_ids) == completion.text

    def test_scores_are_those_of_transformers_with_the_same_adapter(self, served, reference):
        version = served.serve(seed=5)
        transformers = reference(version)
        sequences = [tuple(served.learner.tokenizer.encode(text)) for text in ("The sea is wide.", "Two and two make")]
        expected = [transformers.logprobs(ids[:1], ids[1:]) for ids in sequences]
        assert mean_difference(served.inference.score(sequences), expected) < self.noise

    def test_a_bad_delivery_is_refused_for_its_own_reason_and_the_serving_version_stays(self, served):
        version = served.serve(seed=6)
        before = ask(served, "How are you?", greedy(8))

        flipped, digest = served.publish(seed=7)
        weights = manifest.directory(served.policies, flipped) / "adapter_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert refusal(served, flipped, digest) == "DIGEST_MISMATCH"

        truncated, digest = served.publish(seed=7)
        weights = manifest.directory(served.policies, truncated) / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        assert refusal(served, truncated, digest) == "DIGEST_MISMATCH"

        foreign = republished(served, base_digest="c" * 64)
        assert refusal(served, *foreign) == "BASE_MISMATCH"

        assert refusal(served, *served.publish(seed=7, std=0.0)) == "ALL_ZERO"
        assert refusal(served, *served.publish(seed=7, std=float("nan"))) == "NON_FINITE"

        stale, digest = served.publish(seed=7)
        shutil.rmtree(manifest.directory(served.policies, stale))
        served.publish(seed=8)
        assert refusal(served, stale, digest) == "STALE_MANIFEST"

        assert refusal(served, 999_999, digest) == "POLICY_MISSING"
        assert served.serving == version
        assert ask(served, "How are you?", greedy(8)) == before

    def test_weights_that_are_not_what_the_learner_measured_are_found_by_the_probe(self, served):
        """Every digest is right; only the engine's own numbers can tell."""
        version = served.serve(seed=9)
        other, digest = served.publish(seed=10)
        probe = manifest.read(served.policies, other, digest)[0].probe
        swapped, digest = served.publish(seed=11)
        assert refusal(served, *republished(served, probe=probe)) == "PROBE_DISAGREES"
        # Control: the same weights with their own numbers are proved.
        assert served.registry.load(swapped, digest).proof.proved
        assert served.serving == version

    def test_a_proof_says_how_sure_it_is(self, served):
        proof = served.registry.load(*served.publish(seed=12)).proof
        assert proof.proved
        assert 0 < proof.noise_floor < 0.15
        assert proof.error < proof.shift
        assert proof.tokens >= 200

    def test_cancelling_a_call_frees_the_engine(self, served):
        served.serve(seed=13)
        assert served.in_flight() == 0
        stream = served.inference.generate(chat("Tell me a long story."), endless())
        next(stream)
        assert served.in_flight() == 1
        stream.close()
        assert idle_within(served, FREED_SECONDS)

    def test_a_deadline_frees_the_engine_too(self, served):
        import grpc

        from iterpo import wire
        from iterpo.v1 import inference_pb2, inference_pb2_grpc

        messages = [wire.message_to_proto(m) for m in chat("Tell me a long story.")]
        request = inference_pb2.GenerateRequest(messages=messages, sampling=wire.sampling_to_proto(endless()))
        stub = inference_pb2_grpc.InferenceServiceStub(served.channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Generate(request, timeout=0.3))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert idle_within(served, FREED_SECONDS)

    def test_swaps_and_rollbacks_under_load_fail_nobody(self, served):
        first = served.serve(seed=14)
        with ExitStack() as stack:
            clients = [stack.enter_context(Traffic(served.inference, prompts(), max_tokens=10)) for _ in range(3)]
            answered(clients, 2)
            second = served.serve(seed=15)
            answered(clients, 2)
            assert served.registry.rollback("test").version == first
            answered(clients, 2)
            third = served.serve(seed=16)
            answered(clients, 2)
        assert [c.errors for c in clients] == [[], [], []]
        assert sum(c.failed for c in clients) == 0
        assert set.union(*(c.versions for c in clients)) >= {first, second, third}

    def test_a_stream_keeps_the_version_it_started_on(self, served):
        first = served.serve(seed=17)
        stream = served.inference.generate(chat("Tell me a long story."), endless())
        versions = {next(stream).policy_version}
        second = served.serve(seed=18)
        assert ask(served, "And you?", greedy(2))[1] == {second}
        last = None
        for last in stream:
            versions.add(last.policy_version)
        assert versions == {first}
        assert last is not None
        assert last.finish_reason in (types_pb2.FINISH_REASON_STOP, types_pb2.FINISH_REASON_LENGTH)

    @pytest.mark.parametrize(
        ("text", "max_tokens", "policy", "kind", "reason"),
        [
            ("word " * MAX_MODEL_LEN, 8, "serving", InvalidInput, "CONTEXT_EXCEEDED"),
            ("short", MAX_MODEL_LEN, "serving", InvalidInput, "CONTEXT_EXCEEDED"),
            ("  ", 8, "serving", InvalidInput, "EMPTY_PROMPT"),
            ("short", 8, "424242", NotFound, "POLICY_NOT_FOUND"),
            ("short", 8, "newest", InvalidInput, "INVALID_INPUT"),
            ("short", 8, "-1", InvalidInput, "INVALID_INPUT"),
        ],
    )
    def test_a_request_that_cannot_work_is_refused_with_its_reason(
        self, served, text, max_tokens, policy, kind, reason
    ):
        with pytest.raises(kind) as caught:
            ask(served, text, greedy(max_tokens), policy)
        assert caught.value.reason == reason
        assert caught.value.fix

    @pytest.mark.parametrize("ids", [(1,), (1, 10**6), (1,) * MAX_MODEL_LEN])
    def test_tokens_that_cannot_be_scored_are_refused(self, served, ids):
        with pytest.raises(InvalidInput, match="cannot be scored"):
            served.inference.score([ids])

    def test_a_version_that_made_room_is_not_loaded_any_more(self, served):
        versions = [served.serve(seed=20 + i) for i in range(5)]
        with pytest.raises(WrongState) as caught:
            ask(served, "Hello?", greedy(2), str(versions[0]))
        assert caught.value.reason == "POLICY_NOT_LOADED"

    def test_the_gate_cannot_be_passed_by(self, served):
        serving = served.serve(seed=26)
        version, digest = served.publish(seed=27)
        with pytest.raises(NotFound):
            served.registry.promote(version, YES, "before it is loaded")
        served.registry.load(version, digest)
        with pytest.raises(WrongState) as caught:
            served.registry.promote(version, replace(YES, promote=False), "the gate said no")
        assert caught.value.reason == "NOT_GATED"
        assert served.serving == serving

    def test_what_was_recorded_survives_in_the_state_file(self, served):
        version = served.serve(seed=28)
        saved = json.loads((served.folder / "inference.json").read_text())
        assert saved["serving"] == version
        assert next(p for p in saved["policies"] if p["version"] == version)["proof"]["proved"] is True


def endless() -> SamplingSettings:
    """As long as the context allows; warm enough not to end early."""
    return SamplingSettings(temperature=1.5, max_tokens=180, seed=3)


def refusal(served: Served, version: int, digest: str) -> str:
    with pytest.raises(PolicyRejected) as caught:
        served.registry.load(version, digest)
    assert caught.value.fix
    return caught.value.reason


def republished(served: Served, **changes) -> tuple[int, str]:
    """The newest policy again, under the next version, with another manifest."""
    version = manifest.latest_version(served.policies)
    source = manifest.directory(served.policies, version)
    made = manifest.Manifest.parse((source / manifest.MANIFEST).read_bytes())

    def copy(target):
        for name in manifest.ADAPTER_FILES:
            shutil.copy(source / name, target)

    return version + 1, manifest.publish(served.policies, replace(made, version=version + 1, **changes), copy)


def idle_within(served: Served, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while served.in_flight() and time.monotonic() < deadline:
        time.sleep(0.05)
    return served.in_flight() == 0


def answered(clients: list[Traffic], count: int, seconds: float = 60.0) -> None:
    """Wait until every client has asked `count` times more: what it asked before is answered then."""
    wanted = [c.requests + count for c in clients]
    deadline = time.monotonic() + seconds
    while any(c.requests < n for c, n in zip(clients, wanted, strict=True)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"clients are stuck: {[c.errors for c in clients]}")
        threading.Event().wait(0.05)
