"""`python -m benchmarks.cluster` (`make bench-cluster`): the demo's run on a cluster of one machine, with deaths in it.

Ray with two logical nodes, on them two inference services, two labeling servers on one PostgreSQL, and a learner of two
ranks (gloo): the demo's run of ten iterations, with a client that asks all the while, retrying as an application does.
In mid-run an actor of each kind is killed, with its service. Afterwards: the held-out reward before and after, requests
that failed after their retries, and the store's laws. Needs iterpo[ray], PostgreSQL's programs and some 14 GB; on two
cores half an hour.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks.machine import hardware_key, versions
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import load
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
from iterpo.types import SamplingSettings
from iterpo.v1 import learner_pb2
from tests.store.postgresql_server import postgresql

RESULTS = Path(__file__).parent / "results"
RUN_ID = "cluster"
KILLS = {3: "labeling-2", 5: "inference-2", 7: "learner", 8: "labeling"}
"""After this iteration this actor is killed."""
RETRIES, PAUSE_SECONDS = 60, 2.0
READY_SECONDS, RUN_SECONDS = 900.0, 7200.0


class Application:
    """Asks again and again, and again when it was refused or cut off."""

    def __init__(self, client: InferenceClient, prompts: list[Any]) -> None:
        self._client, self._prompts = client, prompts
        self.requests = self.retried = self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        settings = SamplingSettings(temperature=0.7, max_tokens=12)
        while not self._stop.wait(PAUSE_SECONDS):
            messages = self._prompts[self.requests % len(self._prompts)].messages
            self.requests += 1
            for _ in range(RETRIES):
                try:
                    for _part in self._client.generate(messages, settings):
                        continue
                    break
                except IterpoError:
                    self.retried += 1
                    time.sleep(1.0)
            else:
                self.failed += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    small = {"object_store_memory": 100 * 1024 * 1024}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False, **small})
    nodes.add_node(num_cpus=3, **small)
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # PostgreSQL's account must get through
            with postgresql(Path(folder) / "server") as server:
                found = measure(Path(folder) / "home", base, server.new_database(), arguments.iterations)
    finally:
        ray.shutdown()
        nodes.shutdown()
    path = arguments.out / f"cluster-{hardware_key()}.json"
    whole = {"date": time.strftime("%Y-%m-%d"), "versions": versions() | {"ray": ray.__version__}, **found}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(whole, indent=1), f"\nwritten to {path}", sep="")


def measure(home: Path, base: Path, store: str, iterations: int) -> dict[str, Any]:
    config_path = write_settings(home, base)
    text = config_path.read_text().replace("[labeling]\n", f'[labeling]\nstore = "{store}"\n')
    text = text.replace("[learner]\n", "[learner]\nranks = 2\n")
    config_path.write_text(f"{text}[cluster]\ninference = 2\nlabeling = 2\n")
    settings, config = load(config_path), demo_run("grpo", 0, iterations)
    examples, heldout, _ = read_run_data(RunConfig(algorithm="grpo"), home)
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    killed: list[str] = []
    started = time.monotonic()
    with RayCluster(config_path, lambda event: print(f"  {event.message}", flush=True)) as cluster:
        cluster.wait_ready(READY_SECONDS)
        ready = time.monotonic() - started
        application = Application(InferenceClient(connect_service(settings, "inference")), prompts)
        learner = LearnerClient(connect_service(settings, "learner"))
        learner.start(RUN_ID, config, examples, heldout)
        run = follow(cluster, learner, killed)
        application.stop()
        replicas = dict(cluster.addresses)
    with reading(store) as whole:
        broken = [finding.law for finding in check(whole, time.time()) if finding.broken]
    return {
        "iterations": run.iteration,
        "heldout_reward_before": round(run.heldout_reward_before, 4),
        "heldout_reward_after": round(run.heldout_reward, 4),
        "killed": killed,
        "requests": application.requests,
        "requests_retried": application.retried,
        "requests_failed": application.failed,
        "laws_broken": broken,
        "members": sorted(replicas),
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
