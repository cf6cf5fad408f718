"""`python -m benchmarks.cluster` (`make bench-cluster`): the demo's run on a cluster of one machine, with deaths in it.

Ray with two nodes, on them two inference services, two labeling servers on one PostgreSQL, and a learner of two ranks
(gloo): the demo's run of ten iterations. Meanwhile a client asks, retrying as an application does, and two people
label, one at each labeling server. In mid-run an actor of each kind is killed, with its service. Afterwards: the
held-out reward before and after, requests that failed after their retries, acknowledged labels that are lost, and the
store's laws.

Two logical nodes on loopback, or, with --two-hosts (as root), two hosts of a network of their own: labeling and the
second of everything on the one, the rest on the other, with TLS and tokens. Needs iterpo[ray], PostgreSQL's programs
and some 14 GB; on two cores half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import ray
from ray.cluster_utils import Cluster

from benchmarks.hosts import TwoHosts
from benchmarks.machine import hardware_key, versions
from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect_at, connect_service
from iterpo.clients.inference import InferenceClient
from iterpo.clients.labeling import LabelingClient, LabelResult
from iterpo.clients.learner import LearnerClient
from iterpo.config import SERVICES, Settings, load
from iterpo.demo.demo import write_settings
from iterpo.demo.settings import demo_run
from iterpo.embedded_model import prepare
from iterpo.errors import IterpoError, Unavailable
from iterpo.prompts import read
from iterpo.ray_cluster import RayCluster
from iterpo.run_config import RunConfig
from iterpo.run_data import demo_file, read_run_data
from iterpo.store.check import check
from iterpo.store.whole import reading
from iterpo.types import Outcome, SamplingSettings
from iterpo.v1 import learner_pb2
from tests.labeling.builders import group
from tests.store.postgresql_server import postgresql

RESULTS = Path(__file__).parent / "results"
SECRETS = Path(__file__).parents[1] / "deploy" / "secrets.sh"
RUN_ID, TASKS_ID, TASKS = "cluster", "people", 8000
RAY_PORT, NODE_CPUS, OBJECT_BYTES = 6379, 3, 100 * 1024 * 1024
KILLS = {2: "labeling-2", 4: "inference-2", 5: "learner", 7: "labeling", 8: "inference"}
"""After this iteration this actor is killed."""
RETRIES, PAUSE_SECONDS = 60, 2.0
READY_SECONDS, RUN_SECONDS = 900.0, 7200.0


class Busy:
    """A thread that goes on until it is stopped."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        raise NotImplementedError


class Application(Busy):
    """Asks again and again, whichever of the servers is there, and again when it was refused or cut off."""

    def __init__(self, connect: Callable[[], grpc.Channel], prompts: list[Any]) -> None:
        self._connect, self._prompts = connect, prompts
        self.requests = self.retried = self.failed = 0
        super().__init__()

    def _run(self) -> None:
        settings = SamplingSettings(temperature=0.7, max_tokens=12)
        channel = self._connect()
        while not self._stop.wait(PAUSE_SECONDS):
            messages = self._prompts[self.requests % len(self._prompts)].messages
            self.requests += 1
            for _ in range(RETRIES):
                try:
                    for _part in InferenceClient(channel).generate(messages, settings):
                        continue
                    break
                except IterpoError:
                    self.retried += 1
                    time.sleep(1.0)
                    channel.close()
                    channel = self._connect()  # who was placed anew has another address
            else:
                self.failed += 1
        channel.close()


class Person(Busy):
    """Labels at `server()`, one task a second, and comes back when it was away."""

    def __init__(self, settings: Settings, name: str, server: Callable[[], str]) -> None:
        self._settings, self._name, self._server = settings, name, server
        self.acknowledged: list[str] = []
        self.refused = self.away = 0
        """Labels; how often the server was."""
        super().__init__()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with (
                    connect_at(self._server(), self._settings, self._settings.token("annotator")) as channel,
                    Annotation(channel, self._name, patience_seconds=20, on_result=self._take) as annotation,
                ):
                    while not self._stop.wait(1.0):
                        if (lease := annotation.next(1.0)) is not None:
                            # Wherever it stands: who always takes the left one is quarantined.
                            annotation.label(lease, Outcome.SECOND if lease.swapped else Outcome.FIRST)
            except Unavailable:
                self.away += 1
                time.sleep(1.0)

    def _take(self, request_id: str, result: LabelResult) -> None:
        if result.accepted:
            self.acknowledged.append(result.event_id)
        else:
            self.refused += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--two-hosts", action="store_true", help="in two network namespaces, with TLS and tokens")
    parser.add_argument("--join", default="", help=argparse.SUPPRESS)  # what --two-hosts starts on the first host
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    if arguments.two_hosts and not arguments.join:
        sys.exit(on_two_hosts())
    hosts = dict.fromkeys(SERVICES, "127.0.0.1")
    if arguments.join:
        hosts = dict.fromkeys(SERVICES, TwoHosts.addresses[0]) | {"labeling": TwoHosts.addresses[1]}
    with ExitStack() as ending:
        ending.enter_context(joined(arguments.join) if arguments.join else logical_nodes())
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # PostgreSQL's account must get through
        server = ending.enter_context(postgresql(folder / "server", hosts["learner"]))
        settings = write(folder / "home", base, server.new_database(), hosts)
        found = measure(settings, demo_run("grpo", 0, arguments.iterations))
    path = arguments.out / f"cluster-{'two-hosts-' if arguments.join else ''}{hardware_key()}.json"
    whole = {"date": time.strftime("%Y-%m-%d"), "versions": versions() | {"ray": ray.__version__}, **found}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole, indent=1), f"\nwritten to {path}", sep="")


def on_two_hosts() -> int:
    """This benchmark on the first of two hosts, with Ray on both; its exit status."""
    program = shutil.which("ray", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "ray"
    start = [program, "start", "--block", "--disable-usage-stats", f"--num-cpus={NODE_CPUS}"]
    start.append(f"--object-store-memory={OBJECT_BYTES}")
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        TwoHosts() as hosts,
        Path(folder, "nodes.log").open("wb") as log,
    ):
        first, second = hosts.addresses
        address, told = f"{first}:{RAY_PORT}", {"stdout": log, "stderr": log}
        head = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = [hosts.start(0, [*start, *head, f"--node-ip-address={first}"], **told)]
        nodes.append(hosts.start(1, [*start, f"--address={address}", f"--node-ip-address={second}"], **told))
        again = [sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:], "--join", address]
        measuring = hosts.start(0, again)
        while measuring.poll() is None:
            if any(node.poll() is not None for node in nodes):
                raise SystemExit(f"ray start ended: {Path(folder, 'nodes.log').read_text()[-2000:]}")
            time.sleep(1.0)
        return measuring.returncode


@contextmanager
def joined(address: str) -> Iterator[None]:
    """The cluster of both hosts."""
    deadline = time.monotonic() + READY_SECONDS
    while not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, _node_ip_address=address.partition(":")[0])
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
    try:
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            if time.monotonic() > deadline:
                raise TimeoutError("the second host did not join")
            time.sleep(0.5)
        yield
    finally:
        ray.shutdown()


@contextmanager
def logical_nodes() -> Iterator[None]:
    each = {"num_cpus": NODE_CPUS, "object_store_memory": OBJECT_BYTES}
    nodes = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **each})
    nodes.add_node(**each)
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def write(home: Path, base: Path, store: str, hosts: dict[str, str]) -> Path:
    """The demo's iterpo.toml for a cluster; beyond loopback with TLS and tokens."""
    path = write_settings(home, base)
    text = path.read_text()
    for service, more in (("inference", ""), ("labeling", f'store = "{store}"\n'), ("learner", "ranks = 2\n")):
        before = f'[{service}]\naddress = "127.0.0.1:'
        text = text.replace(before, f'[{service}]\n{more}address = "{hosts[service]}:')
    text += "[cluster]\ninference = 2\nlabeling = 2\n"
    beyond = sorted(set(hosts.values()) - {"127.0.0.1"})
    if beyond:
        subprocess.run([SECRETS, home / "secrets", *beyond], check=True, stdout=subprocess.DEVNULL, timeout=120)
        files = {"tokens_file": "tokens", "token_file": "token", "tls_certificate": "server.pem"}
        files |= {"tls_key": "server.key", "tls_ca": "authority.pem"}
        text += "[auth]\n" + "".join(f'{key} = "secrets/{name}"\n' for key, name in files.items())
    path.write_text(text)
    return path


def measure(config_path: Path, config: RunConfig) -> dict[str, Any]:
    settings = load(config_path)
    examples, heldout, _ = read_run_data(RunConfig(algorithm="grpo"), config_path.parent)
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    killed: list[str] = []
    started = time.monotonic()
    with RayCluster(config_path, lambda event: print(f"  {event.message}", flush=True)) as cluster:
        cluster.wait_ready(READY_SECONDS)
        ready = time.monotonic() - started
        labeling = LabelingClient(connect_service(settings, "labeling"))
        for start in range(0, TASKS, 500):
            tasks = [group("left", "right", group_id=f"task{i}") for i in range(start, start + 500)]
            labeling.record(TASKS_ID, "people", tasks, f"tasks{start}")
        servers = ("labeling", "labeling-2")
        people = [Person(settings, f"at-{name}", lambda name=name: cluster.addresses[name]) for name in servers]
        serving = ("inference", "inference-2")
        application = Application(
            lambda: connect_at([cluster.addresses[name] for name in serving], settings, settings.token("client")),
            prompts,
        )
        learner = LearnerClient(connect_service(settings, "learner"))
        learner.start(RUN_ID, config, examples, heldout)
        run = follow(cluster, learner, killed)
        for busy in (application, *people):
            busy.stop()
        stored = {event.label.label_id for event in labeling.stream(TASKS_ID, 0, 5.0) if event.label}
        addresses = dict(cluster.addresses)
    with reading(settings.labeling.store) as whole:
        broken = [finding.law for finding in check(whole, time.time()) if finding.broken]
    acknowledged = [label for person in people for label in person.acknowledged]
    return {
        "iterations": run.iteration,
        "heldout_reward_before": round(run.heldout_reward_before, 4),
        "heldout_reward_after": round(run.heldout_reward, 4),
        "killed": killed,
        "requests": application.requests,
        "requests_retried": application.retried,
        "requests_failed": application.failed,
        "labels_acknowledged": len(acknowledged),
        "labels_acknowledged_and_lost": len(set(acknowledged) - stored),
        "labels_refused": sum(person.refused for person in people),
        "times_a_labeling_server_was_away": sum(person.away for person in people),
        "laws_broken": broken,
        "addresses": addresses,
        "seconds_to_ready": round(ready, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def follow(cluster: RayCluster, learner: LearnerClient, killed: list[str]) -> learner_pb2.Run:
    """To the run's end; who watches comes back when the learner does, and resumes what its death interrupted."""
    made, deadline = 0, time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        cluster.poll()
        try:
            run = learner.get(RUN_ID, most_rows=1).run
            if run.state in (learner_pb2.RUN_STATE_STOPPED, learner_pb2.RUN_STATE_INTERRUPTED):
                learner.resume(RUN_ID)
        except Unavailable:
            time.sleep(1.0)
            continue
        if run.iteration > made:
            made = run.iteration
            print(f"iteration {made}: held-out {run.heldout_reward:.3f}, version {run.policy_version}", flush=True)
            if made in KILLS and KILLS[made] not in killed:
                print(f"  killing {KILLS[made]}", flush=True)
                ray.kill(cluster.actor(KILLS[made]), no_restart=False)
                killed.append(KILLS[made])
        if run.state in (learner_pb2.RUN_STATE_FINISHED, learner_pb2.RUN_STATE_FAILED):
            return run
        time.sleep(1.0)
    raise TimeoutError(f"the run stood at iteration {made} after {RUN_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
