"""`python -m benchmarks.labels`: how many labels a second the labeling service acknowledges, and what idle people cost.

A real labeling process with its SQLite store, every commit synced, and real gRPC streams from another process on the
same two cores. Every annotator answers a task the moment it comes, so the figure is the service's, not people's.

    labels/s acknowledged over Annotate streams, with the latency from sending a label to its acknowledgement
    labels/s over unary calls, one label a call, by as many callers
    megabytes of the server with 1,000 annotators connected and nothing to do
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from benchmarks.machine import hardware_key
from iterpo.clients.channel import OPTIONS, connect
from iterpo.clients.labeling import LabelingClient
from iterpo.demo.free_ports import free_ports
from iterpo.errors import Unavailable
from iterpo.types import Completion, FinishReason, Group, Message, Prompt
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import labeling_pb2_grpc, types_pb2

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
ANSWER = "Of course! " + "It is a pleasure to help with that, and here is how it is done in a few steps. " * 3
START_SECONDS = 60.0
CONFIG = """data_dir = "{folder}/data"
[labeling]
address = "127.0.0.1:{port}"
metrics_address = ""
page_address = ""
store = "{store}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    parser.add_argument("--labels", type=int, default=60_000)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--credit", type=int, default=16, help="tasks that each annotator holds at the same time")
    parser.add_argument("--idle", type=int, default=1_000, help="annotators connected with nothing to do")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, labeling(Path(folder)) as (address, process):
        result: dict[str, Any] = {"machine": hardware_key(), "date": time.strftime("%Y-%m-%d")}
        result["idle"] = asyncio.run(measure_idle(address, process.pid, arguments.idle))
        print(result["idle"], flush=True)
        record(address, arguments.labels + arguments.streams * arguments.credit, "stream")
        result["streams"] = asyncio.run(
            measure_streams([address], arguments.streams, arguments.credit, arguments.labels)
        )
        result["streams"]["server_megabytes"] = megabytes(process.pid)
        print(result["streams"], flush=True)
        unary = arguments.labels // 12
        record(address, unary + arguments.streams, "unary")
        result["unary"] = asyncio.run(measure_unary(address, arguments.streams, unary))
        result["streams_over_unary"] = round(
            result["streams"]["labels_per_second"] / result["unary"]["labels_per_second"], 2
        )
    path = arguments.out / f"labels-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), f"\nwritten to {path}", sep="")


@contextmanager
def labeling(folder: Path, store: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A labeling process on a free port: (address, process). `store`: labeling.store."""
    (port,) = free_ports(1)
    config = folder / "iterpo.toml"
    config.write_text(CONFIG.format(folder=folder, port=port, store=store))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.labeling", "--config", config],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        await_ready(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait(20)


def await_ready(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with connect(address) as channel:
        while True:
            try:
                LabelingClient(channel).labelers()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


def record(address: str, tasks: int, run_id: str) -> None:
    """So many tasks of one label each, of answers of some 50 words with their tokens."""
    with connect(address) as channel:
        client = LabelingClient(channel)
        for start in range(0, tasks, 500):
            groups = [group(f"{run_id}-{number}") for number in range(start, min(start + 500, tasks))]
            client.record(run_id, "people", groups, uuid.uuid4().hex)


def group(name: str) -> Group:
    ids = tuple(range(60))
    answers = tuple(
        Completion(f"{name}-{i}", name, name, ANSWER + str(i), ids, ids, (-0.5,) * 60, FinishReason.STOP, i, "base")
        for i in range(2)
    )
    return Group(name, Prompt(name, (Message("user", "How is it done?"),)), answers)


async def measure_streams(addresses: Sequence[str], streams: int, credit: int, labels: int) -> dict[str, Any]:
    """Shared out over the servers."""
    left, latencies = [labels], list[float]()
    channels = [grpc.aio.insecure_channel(address, options=OPTIONS) for address in addresses]
    stubs = [labeling_pb2_grpc.LabelingServiceStub(channel) for channel in channels]
    started = time.monotonic()
    people = [
        asyncio.create_task(annotate(stubs[n % len(stubs)], f"person-{n}", credit, left, latencies))
        for n in range(streams)
    ]
    while len(latencies) < labels:
        await asyncio.sleep(0.02)
        for failed in (person for person in people if person.done()):
            failed.result()
    seconds = time.monotonic() - started
    for person in people:
        person.cancel()
    await asyncio.gather(*people, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return figures(latencies, seconds) | {"streams": streams, "credit": credit}


async def annotate(stub: Any, name: str, credit: int, left: list[int], latencies: list[float]) -> None:
    """One annotator: answers whatever comes until the common number of labels is used up; then he is cancelled."""
    call = stub.Annotate()
    await call.write(pb.AnnotateRequest(start=pb.AnnotateStart(annotator=name, credit=credit, run_id="stream")))
    sent: dict[str, float] = {}
    async for response in call:
        now = time.monotonic()
        for result in response.results:
            assert result.accepted, result
            latencies.append(now - sent.pop(result.request_id))
        batch = []
        for lease in response.leases[: max(0, left[0])]:
            left[0] -= 1
            request_id = uuid.uuid4().hex
            sent[request_id] = time.monotonic()
            batch.append(
                pb.LabelSubmission(
                    request_id=request_id, lease_id=lease.lease_id, presented_outcome=taste(lease), strength=1
                )
            )
        if batch:
            await call.write(pb.AnnotateRequest(labels=pb.AnnotateLabels(labels=batch)))


def taste(lease: pb.Lease) -> Any:
    """Everybody prefers the second policy's answers: who always chose the left one would be put in quarantine."""
    first_is_better = lease.task.first.text > lease.task.second.text
    return types_pb2.OUTCOME_FIRST if first_is_better != lease.swapped else types_pb2.OUTCOME_SECOND


async def measure_unary(address: str, callers: int, labels: int) -> dict[str, Any]:
    left, latencies = [labels], list[float]()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        stub = labeling_pb2_grpc.LabelingServiceStub(channel)

        async def label(name: str) -> None:
            while left[0] > 0:
                leases = await stub.LeaseTasks(pb.LeaseTasksRequest(annotator=name, run_id="unary"))
                for lease in leases.leases[: left[0]]:
                    left[0] -= 1
                    submission = pb.LabelSubmission(
                        request_id=uuid.uuid4().hex, lease_id=lease.lease_id, presented_outcome=taste(lease)
                    )
                    began = time.monotonic()
                    await stub.SubmitLabels(pb.SubmitLabelsRequest(annotator=name, labels=[submission]))
                    latencies.append(time.monotonic() - began)

        started = time.monotonic()
        await asyncio.gather(*(label(f"caller-{n}") for n in range(callers)))
        seconds = time.monotonic() - started
    return figures(latencies, seconds) | {"callers": callers}


async def measure_idle(address: str, server_pid: int, annotators: int) -> dict[str, Any]:
    """Megabytes of the server with so many connections open and no task; each annotator has a channel of his own."""
    before = megabytes(server_pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channels, calls = [], []
    for number in range(annotators):
        channel = grpc.aio.insecure_channel(address, options=[*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        call = labeling_pb2_grpc.LabelingServiceStub(channel).Annotate()
        await call.write(pb.AnnotateRequest(start=pb.AnnotateStart(annotator=f"idle-{number}")))
        await call.read()
        channels.append(channel)
        calls.append(call)
    cpu = cpu_seconds(server_pid)
    await asyncio.sleep(10)
    busy = (cpu_seconds(server_pid) - cpu) / 10
    during = megabytes(server_pid)
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    return {
        "annotators": annotators,
        "server_megabytes": during,
        "server_megabytes_before": before,
        "server_cpu_share_idle": round(busy, 3),
        "file_limit": soft,
    }


def figures(latencies: list[float], seconds: float) -> dict[str, Any]:
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "labels": len(latencies),
        "labels_per_second": round(len(latencies) / seconds, 1),
        "milliseconds_p50": round(1000 * cuts[49], 2),
        "milliseconds_p99": round(1000 * cuts[98], 2),
        "milliseconds_most": round(1000 * max(latencies), 2),
    }


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"process {pid} is gone")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
