"""The whole product in one command: three services, a run, a client that never stops asking, and what came of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iterpo import wire
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import load
from iterpo.demo import plot
from iterpo.demo.free_ports import free_ports
from iterpo.demo.settings import demo_run
from iterpo.demo.traffic import Traffic
from iterpo.embedded_model import prepare
from iterpo.errors import IterpoError
from iterpo.prompts import read
from iterpo.run_config import RunConfig
from iterpo.run_data import demo_file, read_run_data
from iterpo.supervisor import Supervisor
from iterpo.types import IterationRow, Prompt, SamplingSettings
from iterpo.v1 import learner_pb2

READY_TIMEOUT_SECONDS = 300.0
SHOWN = 2
"""Held-out prompts whose answers are shown before and after."""
RUN_ID = "demo"


@dataclass(frozen=True)
class Teller:
    """How the demo talks: the command line gives rich output, tests give lists."""

    status: Callable[[str], None]
    row: Callable[[learner_pb2.IterationRow], None]
    answers: Callable[[list[tuple[str, str, str]]], None]
    """(prompt, answer before, answer after) of the shown prompts."""


def run_demo(algorithm: str, seed: int, iterations: int | None, home: Path, tell: Teller) -> dict[str, Any]:
    """Run the demo in a fresh folder under `home`; returns the summary that is its last line."""
    started = time.monotonic()
    config = demo_run(algorithm, seed, iterations)
    base = prepare(home / "models", tell.status)
    folder = home / "demo" / f"{algorithm}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    config_path = write_settings(folder, base)
    settings = load(config_path)
    examples, heldout, _ = read_run_data(RunConfig(algorithm=algorithm), folder)
    asked = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    tell.status("Starting inference, labeling and learner")
    with Supervisor(config_path, on_event=lambda event: tell.status(event.message)) as services:
        services.wait_ready(READY_TIMEOUT_SECONDS)
        inference = InferenceClient(connect_service(settings, "inference"))
        shown = [e.prompt for e in heldout[:: len(heldout) // SHOWN][:SHOWN]]
        before = [greedy(inference, prompt) for prompt in shown]
        with Traffic(inference, asked) as traffic:
            learner = LearnerClient(connect_service(settings, "learner"))
            learner.start(RUN_ID, config, examples, heldout)
            rows, run = follow(learner, services, tell)
        after = [greedy(inference, prompt) for prompt in shown]
        policies = PolicyClient(connect_service(settings, "inference")).versions()
    tell.answers(list(zip((p.text for p in shown), before, after, strict=True)))
    promoted = [p for p in policies if p.decision is not None and p.decision.promote]
    picture = folder / "learning.png"
    plot.save(rows, run.heldout_reward_before, f"{algorithm}, seed {seed}: one short, friendly sentence", picture)
    swaps = [row.swap_ms for row in rows if row.promoted]
    return {
        "algorithm": algorithm,
        "seed": seed,
        "iterations": len(rows),
        "heldout_reward_before": round(run.heldout_reward_before, 4),
        "heldout_reward_after": round(run.heldout_reward, 4),
        "swaps": len(promoted),
        "swaps_proved": sum(bool(p.proof and p.proof.proved) for p in promoted),
        "traffic_requests": traffic.requests,
        "traffic_failed": traffic.failed,
        "traffic_versions": len(traffic.versions),
        "swap_ms_p50": round(statistics.median(swaps), 3) if swaps else None,
        "tokens_per_second": round(statistics.median(r.tokens_per_second for r in rows), 1),
        "seconds": round(time.monotonic() - started, 1),
        "plot": str(picture),
    }


def follow(learner: LearnerClient, services: Supervisor, tell: Teller) -> tuple[list[IterationRow], learner_pb2.Run]:
    """Watch the run to its end. Raises IterpoError when it failed or a service could not be kept alive."""
    rows: list[IterationRow] = []
    for news in learner.watch(RUN_ID):
        services.poll()
        if news.HasField("row"):
            rows.append(wire.row_from_proto(RUN_ID, news.row))
            tell.row(news.row)
        else:
            tell.status(f"iteration {news.run.iteration + 1} of {news.run.iterations}: {news.run.status}")
        run = news.run
    if run.state != learner_pb2.RUN_STATE_FINISHED:
        raise IterpoError(f"The run did not finish: {run.status}", f"Read {services.log_dir}.", "RUN_FAILED")
    return rows, run


def greedy(client: InferenceClient, prompt: Prompt) -> str:
    settings = SamplingSettings(temperature=0.0, max_tokens=48)
    return "".join(part.text_delta for part in client.generate(prompt.messages, settings)).strip()


NO_HTTP = {"inference": "http_address", "labeling": "page_address"}
"""What a demo does not open."""


def write_settings(folder: Path, base: Path) -> Path:
    """An iterpo.toml with free ports, so that a demo disturbs no other server."""
    folder.mkdir(parents=True)
    ports = free_ports(6)
    lines = ['data_dir = "."', "[model]", f'path = "{base.resolve()}"']
    for name, grpc_port, metrics_port in zip(("inference", "labeling", "learner"), ports[:3], ports[3:], strict=True):
        lines += [f"[{name}]", f'address = "127.0.0.1:{grpc_port}"', f'metrics_address = "127.0.0.1:{metrics_port}"']
        lines += [f'{NO_HTTP[name]} = ""'] if name in NO_HTTP else []
    path = folder / "iterpo.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
