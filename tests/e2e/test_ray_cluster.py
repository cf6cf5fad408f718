"""Services as Ray actors on two logical nodes: the same services, restarted by whoever notices first."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray
from ray.cluster_utils import Cluster

from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.cluster import members
from iterpo.config import load
from iterpo.demo.free_ports import free_ports
from iterpo.errors import InvalidConfig, Unavailable, WrongState
from iterpo.ray_cluster import RayCluster
from iterpo.store.check import check
from iterpo.store.whole import reading
from iterpo.supervisor import Event
from tests.labeling.builders import group
from tests.services.test_labels_survive_kills import NO_MEASURING, Crowd
from tests.store.postgresql_server import PostgresqlServer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open
]


def settings(folder: Path, text: str) -> Path:
    (port,) = free_ports(1)
    path = folder / "iterpo.toml"
    path.write_text(
        f'data_dir = "data"\n[labeling]\naddress = "127.0.0.1:{port}"\nmetrics_address = ""\npage_address = ""\n'
        f"{NO_MEASURING}{text}"
    )
    return path


def test_members_are_the_boxs_services_and_more_of_them(tmp_path: Path) -> None:
    path = settings(tmp_path, 'store = "postgresql://iterpo@db/f"\n[cluster]\ninference = 2\nlabeling = 2\n')
    found = {member.name: member for member in members(load(path))}
    assert list(found) == ["inference", "labeling", "learner", "inference-2", "labeling-2"]
    assert [name for name, member in found.items() if member.is_first] == ["inference", "labeling", "learner"]
    assert found["inference"].changes == ()
    again = load(path, [c.format(host="10.0.0.7", port=5) for c in found["inference-2"].changes])
    assert (again.inference.follow, again.inference.address) == ("127.0.0.1:50051", "10.0.0.7:5")
    assert again.data_dir == tmp_path / "data/cluster/inference-2"
    assert again.labeling.store == "postgresql://iterpo@db/f"


def test_several_labeling_servers_need_a_shared_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="iterpo store copy"):
        members(load(settings(tmp_path, "[cluster]\nlabeling = 2\n")))


def test_a_ray_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    path = settings(tmp_path, f'[cluster]\nray_address = "127.0.0.1:{free_ports(1)[0]}"\n')
    began = time.monotonic()
    with pytest.raises(Unavailable, match="no Ray cluster") as refused, RayCluster(path, only=["labeling"]):
        pytest.fail("joined")
    assert refused.value.reason == "RAY_AWAY"
    assert time.monotonic() - began < 10


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two logical nodes on this machine, of two CPUs each."""
    small = {"object_store_memory": 100 * 1024 * 1024}
    cluster = head_node(num_cpus=2, include_dashboard=False, **small)
    cluster.add_node(num_cpus=2, **small)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def head_node(**settings: Any) -> Cluster:
    """Ray gives its control service 30 s, of which it needs one, and says no more than that they were over: a busy
    machine gets more of them, and what the service said is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_gcs_server_port_wait_time_s", "120")
        try:
            return Cluster(initialize_head=True, head_node_args=settings)
        except RuntimeError as error:
            logs = Path("/tmp/ray/session_latest/logs")
            said = "\n".join(log.read_text(errors="replace")[-4000:] for log in sorted(logs.glob("gcs_server.*")))
            raise RuntimeError(f"{error}; LD_PRELOAD={os.environ.get('LD_PRELOAD')}; its log:\n{said}") from error


def test_what_cannot_be_placed_is_said(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iterpo.ray_cluster.PLACE_SECONDS", 2.0)
    path = settings(tmp_path, "[cluster]\nlabeling_cpus = 64\ninference_gpus = 1\n")
    for service, why in (("labeling", "ask for 64 CPUs"), ("inference", "1 GPUs, the cluster has 4 and 0")):
        with pytest.raises(WrongState, match=why) as refused, RayCluster(path, only=[service]):
            pytest.fail("placed")
        assert refused.value.reason == "NO_PLACE"


def test_where_an_address_is_a_name_the_node_that_offers_the_first_place_gets_it(
    tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings(tmp_path, "")
    (port,) = free_ports(1)
    named = f'"{socket.gethostname()}:{port}"\nlisten = "127.0.0.1:{port}"'
    path.write_text(re.sub(r'"127.0.0.1:\d+"', named, path.read_text()))
    with monkeypatch.context() as soon:
        soon.setattr("iterpo.ray_cluster.PLACE_SECONDS", 2.0)
        with pytest.raises(WrongState, match="no node offers iterpo-first"), RayCluster(path, only=["labeling"]):
            pytest.fail("placed")
    first = nodes.add_node(num_cpus=1, resources={"iterpo-first": 1}, object_store_memory=100 * 1024 * 1024)
    try:
        with RayCluster(path, only=["labeling"]) as cluster:
            table = ray.util.placement_group_table(cluster._group)
            assert set(table["bundles_to_node_id"].values()) == {first.node_id}
    finally:
        nodes.remove_node(first)


def test_labeling_servers_on_two_nodes_survive_the_death_of_a_service_and_of_an_actor(
    tmp_path: Path, nodes: Any, postgresql_server: PostgresqlServer
) -> None:
    store, told = postgresql_server.new_database(), list[Event]()
    path = settings(tmp_path, f'store = "{store}"\n[cluster]\nlabeling = 2\nlabeling_cpus = 1.5\n')
    with RayCluster(path, told.append, only=["labeling"]) as cluster:
        cluster.wait_ready(120)
        table = ray.util.placement_group_table(cluster._group)
        assert len(set(table["bundles_to_node_id"].values())) == 2, "one on each node"
        addresses = dict(cluster.addresses)
        assert set(addresses) == {"labeling", "labeling-2"}
        record(addresses["labeling"], 0)
        first, second = (Crowd(addresses[name], prefix=name) for name in ("labeling", "labeling-2"))
        keep = threading.Event()
        watching = threading.Thread(target=_poll, args=(cluster, keep))
        watching.start()
        _until(lambda: bool(first.acknowledged and second.acknowledged))
        os.kill(ray.get(cluster.actor("labeling").pid.remote("labeling")), signal.SIGKILL)  # a service
        _until(lambda: _serves(addresses["labeling"]))
        ray.kill(cluster.actor("labeling-2"), no_restart=False)  # an actor, with its service
        second.stop()  # its port is another one now
        _until(lambda: cluster.addresses["labeling-2"] != addresses["labeling-2"])
        _until(lambda: _serves(cluster.addresses["labeling-2"]))
        record(cluster.addresses["labeling-2"], 4000)
        again, before = Crowd(cluster.addresses["labeling-2"], prefix="again"), len(first.acknowledged)
        _until(lambda: bool(again.acknowledged) and len(first.acknowledged) > before)  # the first came back by itself
        first.stop()
        again.stop()
        keep.set()
        watching.join(30)
        with connect(addresses["labeling"]) as channel:
            labels = [e.label for e in LabelingClient(channel).stream("run", 0, 2.0) if e.label]
    acknowledged = first.acknowledged + second.acknowledged + again.acknowledged
    assert first.errors == again.errors == []
    assert set(acknowledged) <= {label.label_id for label in labels}, "an acknowledged label is lost"
    assert max(Counter(label.group_id for label in labels).values()) == 1, "over-collected"
    assert {"died", "restarting", "ready"} <= {event.kind for event in told}
    with reading(store) as whole:
        assert [finding.law for finding in check(whole, time.time()) if finding.broken] == []


def record(address: str, first: int) -> None:
    with connect(address) as channel:
        for start in range(first, first + 4000, 500):
            groups = [group("left", "right", group_id=f"g{i}") for i in range(start, start + 500)]
            LabelingClient(channel).record("run", "people", groups, f"r{start}")


def _poll(cluster: RayCluster, until: threading.Event) -> None:
    while not until.wait(0.3):
        cluster.poll()


def _serves(address: str) -> bool:
    try:
        with connect(address, retries=False) as channel:
            LabelingClient(channel).labelers()
    except Unavailable:
        return False
    return True


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
