"""`python -m benchmarks.overhead`: what watching costs, in tokens/s and in learner steps/s.

Serving: 64 streams of 48 tokens from one real inference service, its instruments switched off, on (metrics counted,
/metrics read every five seconds, as Prometheus does), and on with every request traced to a collector; the three in
turn, so that what the machine does meanwhile meets them all. Learning: one update of 64 completions, alone, and with
what a run does beside it for whoever watches (the batch kept on disk, the row's metrics, a span), in turn.

Printed and written: the median of the rounds' own ratios to "off", with its 95 % interval (sign test); and, as speeds
differ by more than a hundredth from round to round here, what the instruments took: of the service's own processor
time (the engine's process has no instruments) as a share of one core while it serves, and of a step's by the clock.
Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import grpc

from benchmarks.learner_task import GROUPS, SIZE, task
from benchmarks.machine import hardware_key, versions
from benchmarks.streams import burst, in_turn
from benchmarks.workload import SETTINGS
from iterpo import tracing
from iterpo.clients.channel import OPTIONS
from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.embedded_model import prepare
from iterpo.learner.batch_record import BatchFiles
from iterpo.supervisor import HealthCheck, ServiceSpec, Supervisor
from iterpo.v1 import inference_pb2_grpc
from tests.e2e.collector import collecting

RESULTS = Path(__file__).parent / "results"
STREAMS, SCRAPE_SECONDS, START_SECONDS = 64, 5.0, 300.0
ROUNDS, STEPS = 20, 12
PARTS = ("serving", "learning")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of serving, after a warm-up")
    parser.add_argument("--steps", type=int, default=STEPS, help="of learning, after a warm-up")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS, help="these; the other stays as found")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    path = arguments.out / f"overhead-{hardware_key()}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    result |= {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions()}
    for part in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            measure, times = {"serving": (serving, arguments.rounds), "learning": (learning, arguments.steps)}[part]
            result[part] = measure(Path(folder), base, times)
        print(json.dumps({part: result[part]}, indent=1), flush=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def serving(folder: Path, base: Path, rounds: int) -> dict[str, Any]:
    with collecting() as (_, endpoint):
        config_path = write_settings(folder / "home", base)
        config_path.write_text(config_path.read_text() + f'\n[trace]\nendpoint = "{endpoint}"\n')
        settings = load(config_path)
        command = [sys.executable, "-m", "benchmarks.switchable", "--config", str(config_path)]
        spec = ServiceSpec("inference", command, HealthCheck(settings, "inference"))
        with Supervisor(config_path, specs=[spec]) as services:
            services.wait_ready(START_SECONDS)
            pid, metrics = services.pid("inference"), settings.inference.metrics_address
            bursts = asyncio.run(_serving(settings.inference.address, pid, metrics, rounds))
    rates, costs = ({side: [burst[n] for burst in found] for side, found in bursts.items()} for n in (0, 1))
    speed, cost = ({side: statistics.median(values) for side, values in found.items()} for found in (rates, costs))
    return {
        "tokens_per_second": {side: round(value, 1) for side, value in speed.items()},
        "service_processor_microseconds_a_token": {side: round(1e6 * value, 1) for side, value in cost.items()},
        "instruments_share": {side: round((cost[side] - cost["off"]) * speed["off"], 5) for side in ("on", "traced")},
        **{side: compared(rates[side], rates["off"]) for side in ("on", "traced")},
    }


async def _serving(address: str, pid: int, metrics_address: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(tokens/s, processor seconds of the service's own process for every token)."""

    class Traced(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]  # grpc.aio is typed as Any
        """A trace for every stream, as a client that is traced itself would have it."""

        async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
            entry = (tracing.TRACEPARENT, f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01")
            metadata = grpc.aio.Metadata(*(details.metadata or ()), entry)
            return await continuation(details._replace(metadata=metadata), request)

    async with (
        grpc.aio.insecure_channel(address, options=OPTIONS) as plain,
        grpc.aio.insecure_channel(address, options=OPTIONS, interceptors=[Traced()]) as traced,
    ):

        def side(channel: Any, on: bool) -> Any:
            async def run() -> tuple[float, float]:
                os.kill(pid, signal.SIGUSR1 if on else signal.SIGUSR2)
                await asyncio.sleep(0.5)
                with scraping(metrics_address if on else ""):
                    used = processor_seconds(pid)
                    rate, met = await burst(inference_pb2_grpc.InferenceServiceStub(channel), STREAMS, SETTINGS)
                    cost = (processor_seconds(pid) - used) / sum(count for _, count in met.tokens)
                print(f"{rate:.1f} tokens/s, {1e6 * cost:.0f} us a token", file=sys.stderr, flush=True)
                return rate, cost

            return run

        return await in_turn(rounds, {"off": side(plain, False), "on": side(plain, True), "traced": side(traced, True)})


def processor_seconds(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def scraping(address: str) -> Iterator[None]:
    """At once, and every SCRAPE_SECONDS."""
    ended = threading.Event()

    def scrape() -> None:
        while address and not ended.is_set():
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
                page.read()
            ended.wait(SCRAPE_SECONDS)

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


def learning(folder: Path, base: Path, steps: int) -> dict[str, Any]:
    from prometheus_client import CollectorRegistry

    from benchmarks.learner_side import groups
    from iterpo.algorithms import resolve
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig
    from services.learner.metrics import LearnerMetrics
    from tests.page.run_process import row

    config = RunConfig(prompts_per_iteration=GROUPS, response_sampling={"size": SIZE}, minibatches=1, epochs=1)
    learner = LoraLearner(base, resolve(config), config)
    files, metrics = BatchFiles(folder / "batches", 100), LearnerMetrics(CollectorRegistry())
    given = resolve(config).response_sampling.select(groups(task(64), ""), 0)
    took: dict[str, list[float]] = {"off": [], "on": [], "instruments": []}
    for number in range(steps + 1):
        for side in ("off", "on"):
            started = time.monotonic()
            with tracing.span("update", run="overhead", iteration=number):
                numbers = learner.update(given)
            updated = time.monotonic()
            if side == "on":
                files.write(number, learner.batch)
                metrics.observe(replace(row("overhead", number + 1), metrics=numbers))
            if number:
                took[side].append(time.monotonic() - started)
            if number and side == "on":
                took["instruments"].append(time.monotonic() - updated)
    speeds = {side: [1 / seconds for seconds in took[side]] for side in ("off", "on")}
    return {
        "seconds_an_update": {side: round(statistics.median(took[side]), 3) for side in ("off", "on")},
        "instruments_seconds": round(statistics.median(took["instruments"]), 4),
        "instruments_share": round(statistics.median(took["instruments"]) / statistics.median(took["off"]), 5),
        "on": compared(speeds["on"], speeds["off"]),
    }


def compared(side: Sequence[float], off: Sequence[float]) -> dict[str, Any]:
    """By round: what was measured next to each other is compared."""
    ratios = sorted(a / b for a, b in zip(side, off, strict=True))
    low, high = median_interval(len(ratios))
    return {
        "ratio": round(statistics.median(ratios), 4),
        "interval_95": [round(ratios[low], 4), round(ratios[high], 4)],
        "rounds": len(ratios),
    }


def median_interval(count: int) -> tuple[int, int]:
    """Places in the sorted values that enclose their median with 95 %: of the binomial distribution, as in the sign
    test; the whole range where there are too few."""
    tail, low = 0.0, 0
    while (tail := tail + comb(count, low) / 2**count) <= 0.025:
        low += 1
    low = max(0, low - 1)
    return low, count - 1 - low


if __name__ == "__main__":
    main()
