"""The real inference service as its own process, and policies made without training: a random B is an update too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.config import load
from iterpo.demo.free_ports import free_ports
from iterpo.policies import manifest
from iterpo.supervisor import Supervisor, service_specs
from iterpo.types import GateDecision, Message, Prompt, SamplingSettings

if TYPE_CHECKING:
    from iterpo.learner.learner import LoraLearner

START_SECONDS = 240
MAX_MODEL_LEN = 256
YES = GateDecision(True, (), {"heldout_gain": 0.1})
QUESTIONS = (
    "What should I cook tonight?",
    "How do I learn to swim?",
    "Write one sentence about the sea.",
    "Which animals live in the desert?",
)


def chat(text: str) -> list[Message]:
    return [Message("user", text)]


def prompts(count: int = len(QUESTIONS)) -> list[Prompt]:
    return [Prompt(f"q{i}", tuple(chat(QUESTIONS[i]))) for i in range(count)]


def greedy(max_tokens: int = 24) -> SamplingSettings:
    return SamplingSettings(temperature=0.0, max_tokens=max_tokens)


@dataclass
class Served:
    """A running inference service, clients of it, and the learner that publishes into its folder."""

    folder: Path
    address: str
    channel: grpc.Channel
    learner: LoraLearner
    log: Path
    http: str
    """Of the OpenAI-compatible door: http://host:port/v1"""
    services: Supervisor

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def inference(self) -> InferenceClient:
        return InferenceClient(self.channel)

    @property
    def registry(self) -> PolicyClient:
        return PolicyClient(self.channel)

    def publish(self, seed: int, std: float = 0.02) -> tuple[int, str]:
        """(version, digest) of an adapter whose B matrices are random, as the next version."""
        version = 1 + max(manifest.latest_version(self.policies), *(p.version for p in self.registry.versions()))
        return version, publish_random(self.learner, self.policies, version, seed, std)

    def serve(self, seed: int, std: float = 0.02) -> int:
        """Publish, load, prove and promote."""
        version, digest = self.publish(seed, std)
        self.registry.load(version, digest)
        self.registry.promote(version, YES, f"promote {version}")
        return version

    @property
    def serving(self) -> int:
        return next(p.version for p in self.registry.versions() if p.state == "serving")

    def in_flight(self) -> int:
        from iterpo.v1 import policy_pb2, policy_pb2_grpc

        stub = policy_pb2_grpc.PolicyServiceStub(self.channel)
        listed = stub.ListPolicies(policy_pb2.ListPoliciesRequest(), timeout=10).policies
        return sum(p.in_flight_requests for p in listed)


def publish_random(learner: LoraLearner, root: Path, version: int, seed: int, std: float = 0.02) -> str:
    """The digest of a version whose B matrices are random."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    weights = {
        name: t if ".lora_A." in name else torch.randn(t.shape, generator=draw) * std
        for name, t in learner.model.adapter().items()
    }
    learner.model.load_adapter(weights)
    lineage = {"parent": 0, "run_id": "test", "iteration": 1, "feedback_cursor": 0}
    return learner.publish(root, version, lineage, {})


@contextmanager
def running_inference(
    folder: Path, base: Path, learner: LoraLearner, delivery: str, dtype: str, **more: object
) -> Iterator[Served]:
    """`more`: other settings of [inference]."""
    config = write_config(folder, base, delivery, dtype, **more)
    settings = load(config)
    specs = [spec for spec in service_specs(settings, config) if spec.name == "inference"]
    with Supervisor(config, specs=specs) as services:
        services.wait_ready(START_SECONDS)
        with connect_service(settings, "inference") as channel:
            yield Served(
                folder,
                settings.inference.address,
                channel,
                learner,
                services.log_path("inference"),
                f"http://{settings.inference.http_address}/v1",
                services,
            )


def write_config(folder: Path, base: Path, delivery: str, dtype: str, **more: object) -> Path:
    port, http_port = free_ports(2)
    inference = {
        "address": f"127.0.0.1:{port}",
        "http_address": f"127.0.0.1:{http_port}",
        "metrics_address": "",
        "delivery": delivery,
        "dtype": dtype,
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": 16,
    } | more
    config = folder / "iterpo.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in inference.items()]
    config.write_text("\n".join(['data_dir = "."', "[model]", f'path = "{base}"', "[inference]", *lines, ""]))
    return config


def mean_difference(a: list[list[float]], b: list[list[float]]) -> float:
    """Nats a token."""
    pairs = [(x, y) for row_a, row_b in zip(a, b, strict=True) for x, y in zip(row_a, row_b, strict=True)]
    return math.fsum(abs(x - y) for x, y in pairs) / len(pairs)
