"""`python -m services.inference --config iterpo.toml`: reads the configuration, starts the engine, serves."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from iterpo.clients.channel import connect_at, connect_service
from iterpo.clients.inference import PolicyClient
from iterpo.clients.labeling import LabelingClient
from iterpo.config import Settings, load
from iterpo.embedded_model import model_directory
from iterpo.errors import InvalidConfig, Unavailable
from iterpo.policies import manifest, probe
from iterpo.policies.folder import PolicyFolder
from iterpo.v1 import inference_pb2, inference_pb2_grpc, policy_pb2_grpc
from services import logs
from services.host import Host, ServerSettings, run_service
from services.http_server import HttpServer, check_address
from services.inference.admission import Admission, Quota
from services.inference.answering import Answering
from services.inference.attestation import Attestation
from services.inference.baking import Baker, BakingDelivery
from services.inference.canary import CanaryKeeper
from services.inference.delivery import AdapterDelivery, Delivery, MergedDelivery
from services.inference.engine import VllmEngine, dtype_name, find_device
from services.inference.follower import Follower
from services.inference.metrics import InferenceMetrics
from services.inference.openai.app import OpenAiDoor
from services.inference.openai.feedback import Feedback
from services.inference.prover import Prover
from services.inference.registry import PolicyRegistry
from services.inference.replicas import Replicas
from services.inference.servicer import InferenceServicer, PolicyServicer
from services.instruments import watch_disk

logger = logging.getLogger(__name__)

SERVICES = ("iterpo.v1.InferenceService", "iterpo.v1.PolicyService")
HEALTH_PERIOD_SECONDS = 1.0
AGAIN_SECONDS = 5.0


async def serve(settings: Settings) -> None:
    logs.start("inference", settings.log_format)
    metrics_registry = CollectorRegistry()
    host = Host("inference", ServerSettings.of(settings, "inference"), metrics_registry)
    host.traces.start("inference", settings.trace)
    check_address("inference.http_address", settings.inference.http_address, settings)
    host.bind()
    folder = PolicyFolder.of(settings.data_dir, settings.shared_policies, settings.inference.fetched_mib)
    base = await asyncio.to_thread(model_directory, settings.model.path, settings.data_dir)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    device = find_device(settings.inference.device)
    scratch = scratch_directory(settings.data_dir)
    delivery = make_delivery(settings, base, scratch, device)
    base_digest = await asyncio.to_thread(manifest.digest_model, base)
    prover = Prover(folder, base_digest, probe.sequences(tokenizer), settings.inference.max_lora_rank)
    state_file = settings.data_dir / "inference.json"
    registry = PolicyRegistry(state_file, delivery, prover, settings.inference.canary.share)
    metrics = InferenceMetrics(metrics_registry)
    watch_disk(metrics.made, settings.data_dir)
    metrics.in_flight.set_function(lambda: registry.requests)
    places, queue = settings.inference.max_num_seqs, settings.inference.max_queue
    admission = Admission(places, queue, on_refusal=metrics.on_refusal)
    metrics.admitted.set_function(lambda: admission.inside)
    quota = Quota(settings.inference.tokens_per_minute, on_refusal=metrics.on_refusal)
    attestation = Attestation(registry, metrics, settings.inference.attested_share)
    continues = settings.inference.in_flight == "continue"
    context = settings.inference.max_model_len
    answering = Answering(registry, tokenizer, context, metrics, admission, attestation, continues)
    model = inference_pb2.GetModelResponse(
        name=base.name,
        base_digest=registry.base_digest,
        max_model_len_tokens=settings.inference.max_model_len,
        delivery=delivery.name,
        device=device,
        max_lora_rank=settings.inference.max_lora_rank,
    )
    replicas = Replicas(registry, settings.inference.replicas)
    policies = PolicyServicer(registry, metrics, replicas, folder, settings.inference.follow)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(
        InferenceServicer(answering, registry, model, quota), host.server
    )
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(policies, host.server)

    http = openai_server(settings, host, answering, registry, base.name, quota, metrics)

    async def prepare() -> None:
        await registry.start()
        model.dtype = dtype_name(settings.inference, device)
        if http is not None:
            await http.start()

    async def drain() -> None:
        replicas.close()
        if http is not None:
            await http.stop()

    beside = background(settings, host, registry, delivery, prover, metrics, policies, replicas)
    try:
        await host.run(SERVICES, prepare=prepare, drain=drain)
    finally:
        for task in beside:
            task.cancel()
        died = delivery.dead  # asked before the shutdown, after which vLLM calls every engine dead
        delivery.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
    if died:
        raise Unavailable("The engine died.", "See the traceback above; iterpo up starts it again.", "ENGINE_DIED")


def background(
    settings: Settings,
    host: Host,
    registry: PolicyRegistry,
    delivery: Delivery,
    prover: Prover,
    metrics: InferenceMetrics,
    policies: PolicyServicer,
    replicas: Replicas,
) -> list[asyncio.Task[None]]:
    """What goes on beside the calls: the canary's test, or the primary to follow; baking; gauges; the engine's pulse.

    Raises InvalidConfig when the primary could not be reached safely.
    """

    def labeling() -> LabelingClient:
        return LabelingClient(connect_service(settings, "labeling", "lead"))

    keeper = CanaryKeeper(registry, settings.inference.canary, metrics, labeling, replicas.tally)

    primary = settings.inference.follow
    # Made here, so that a wrong setting ends the start and not a task in the background.
    upstream = connect_at(primary, settings, settings.token("replica")) if primary else None
    name = settings.inference.replica or f"{socket.gethostname()} {settings.inference.address}"

    async def follow_or_lead() -> None:
        await until_ready(host)
        if upstream is not None:
            await Follower(registry, PolicyClient(upstream), name, prover.folder, settings.inference.address).run()
        await keeper.run()

    async def bake() -> None:
        if isinstance(delivery, BakingDelivery):
            await until_ready(host)
            await Baker(registry, delivery, prover, metrics, settings.inference.bake_seconds).run()

    works = (follow_or_lead, bake, policies.follow_changes)
    return [
        asyncio.create_task(stop_when_dead(delivery, host)),
        *(asyncio.create_task(going_on(work)) for work in works),
    ]


def openai_server(
    settings: Settings,
    host: Host,
    answering: Answering,
    registry: PolicyRegistry,
    base_name: str,
    quota: Quota,
    metrics: InferenceMetrics,
) -> HttpServer | None:
    """Bound; None when inference.http_address is empty."""
    inference, auth = settings.inference, settings.auth
    if not inference.http_address:
        return None
    feedback = Feedback(lambda: LabelingClient(connect_service(settings, "labeling", "lead")))
    door = OpenAiDoor(
        answering,
        registry,
        base_name,
        host.guard,
        quota,
        metrics,
        inference.deadline_seconds,
        feedback,
        lambda: host.ready,
        host.audit,
    )
    setting, address = "inference.http_address", inference.http_address
    server = HttpServer(door.app(), setting, address, auth.tls_certificate, auth.tls_key)
    server.bind()
    return server


async def going_on(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Work in the background that must not end unnoticed: whatever it meets is logged, and it begins again."""
    while True:
        try:
            return await work()
        except Exception:
            logger.exception("%s met something unexpected and begins again", work.__qualname__)
            await asyncio.sleep(AGAIN_SECONDS)


async def until_ready(host: Host) -> None:
    while not host.ready:  # noqa: ASYNC110  (the host offers a flag, not an event)
        await asyncio.sleep(HEALTH_PERIOD_SECONDS)


async def stop_when_dead(delivery: Delivery, host: Host) -> None:
    """An engine that died cannot be revived in this process: end it, so that the supervisor starts another."""
    while not delivery.dead:  # noqa: ASYNC110  (vLLM offers a flag, not an event)
        await asyncio.sleep(HEALTH_PERIOD_SECONDS)
    host.stop()


def make_delivery(settings: Settings, base: Path, scratch: Path, device: str) -> Delivery:
    mode = settings.inference.delivery
    if mode == "auto":
        mode = "merged" if device == "cpu" else "adapter"
    check_delivery(settings, mode)
    bakes = settings.inference.bake_seconds > 0
    engines = 2 if mode == "merged" or bakes else 1

    def plain() -> VllmEngine:
        return VllmEngine(base, settings.inference, 0, device, engines)

    def slotted(slots: int) -> VllmEngine:
        return VllmEngine(base, settings.inference, slots, device, engines)

    max_rank, runs = settings.inference.max_lora_rank, settings.inference.run_slots
    if mode == "merged":
        return MergedDelivery(base, scratch, max_rank, plain)
    if bakes:
        return BakingDelivery(scratch, slotted, plain, base, max_rank, runs)
    return AdapterDelivery(scratch, slotted, runs)


def check_delivery(settings: Settings, mode: str) -> None:
    """Raises InvalidConfig for settings that this way of delivery would leave without effect."""
    for name in ("run_slots", "bake_seconds"):
        if mode == "merged" and getattr(settings.inference, name):
            raise InvalidConfig(
                f"inference.{name} is for adapter delivery, and this service delivers merged versions.",
                f'Set inference.delivery = "adapter", or leave {name} out.',
            )
    if settings.inference.follow and settings.inference.follow == settings.inference.address:
        raise InvalidConfig(
            f"The service would follow itself: inference.follow is its own address, {settings.inference.address}.",
            "Name another service, or leave follow out.",
        )


def scratch_directory(data_dir: Path) -> Path:
    """In memory where the system has it; one a data directory, emptied of what a killed process left there."""
    shared_memory = Path("/dev/shm")  # noqa: S108  (the directory in it is ours alone)
    parent = shared_memory if shared_memory.is_dir() else Path(tempfile.gettempdir())
    scratch = parent / f"iterpo-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.inference", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="iterpo.toml; without it, the defaults")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="instead of the file's")
    arguments = parser.parse_args()
    return run_service(lambda: serve(load(arguments.config, arguments.set)))


if __name__ == "__main__":
    sys.exit(main())
