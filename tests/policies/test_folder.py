"""A machine's policies, and the place that machines share: what is fetched is verified, kept, and let go again."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iterpo.errors import InvalidConfig, InvalidInput, PolicyRejected, Unavailable
from iterpo.policies import manifest
from iterpo.policies.depot import Depot
from iterpo.policies.folder import PolicyFolder
from tests.policies.builders import publish


@pytest.fixture(params=["path", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder by its path, by its URL, and a storage without files."""
    memory = f"memory://{tmp_path.name}"
    return {"path": str(tmp_path / "s"), "file": f"file://{tmp_path}/s", "memory": memory}[request.param]


@pytest.fixture
def learner(place: str, tmp_path: Path) -> PolicyFolder:
    root = tmp_path / "learner" / "policies"
    root.mkdir(parents=True)
    return PolicyFolder.of(tmp_path / "learner", place)


@pytest.fixture
def server(place: str, tmp_path: Path) -> PolicyFolder:
    (tmp_path / "server" / "policies").mkdir(parents=True)
    return PolicyFolder.of(tmp_path / "server", place)


def test_what_is_published_on_one_machine_is_read_on_another(learner: PolicyFolder, server: PolicyFolder) -> None:
    digest = publish(learner.root, 1)
    learner.share(1, digest)
    learner.share(1, digest)
    made, files = server.read(1, digest)
    assert made.version == 1
    assert files == manifest.read(learner.root, 1, digest)[1]
    assert server.files(1, digest) == learner.files(1, digest)


def test_what_nobody_shared_is_missing_and_what_lies_here_needs_no_depot(
    learner: PolicyFolder, server: PolicyFolder
) -> None:
    digest = publish(learner.root, 1)
    with pytest.raises(PolicyRejected) as caught:
        server.read(1, digest)
    assert caught.value.reason == "POLICY_MISSING"
    assert learner.read(1, digest)[0].version == 1


@pytest.mark.parametrize("name", [*manifest.ADAPTER_FILES, manifest.MANIFEST])
def test_bytes_that_were_changed_in_the_depot_are_not_taken(
    learner: PolicyFolder, server: PolicyFolder, place: str, name: str
) -> None:
    digest = publish(learner.root, 1)
    learner.share(1, digest)
    depot = Depot(place)
    path = f"{depot._root}/{digest}/{name}"
    depot._files.pipe_file(path, depot._files.cat_file(path)[:-1] + b"!")
    assert depot.get(digest) is None
    with pytest.raises(PolicyRejected, match="cannot be read"):
        server.read(1, digest)
    assert not manifest.directory(server.root, 1).exists()


def test_a_writer_that_died_half_way_is_finished_by_the_next(learner: PolicyFolder, place: str) -> None:
    """The manifest comes last: without it nothing is there."""
    digest = publish(learner.root, 1)
    files, depot = learner.files(1, digest), Depot(place)
    depot._files.makedirs(f"{depot._root}/{digest}", exist_ok=True)
    depot._files.pipe_file(f"{depot._root}/{digest}/adapter_config.json", files["adapter_config.json"][:5])
    assert depot.get(digest) is None
    learner.share(1, digest)
    assert depot.get(digest) == files


@pytest.mark.parametrize("digest", ["", "../../etc", "0" * 63, "A" * 64, "0" * 64 + "/.."])
def test_only_a_digest_becomes_a_path(place: str, digest: str) -> None:
    with pytest.raises(InvalidInput, match="is no digest"):
        Depot(place).get(digest)


def test_a_depot_that_is_away_is_no_verdict_on_the_policy(learner: PolicyFolder, server: PolicyFolder) -> None:
    digest = publish(learner.root, 1)

    class Gone:
        def __getattr__(self, _name: str):
            raise TimeoutError("no route to host")

    for folder in (learner, server):
        folder._depot._files = Gone()
    with pytest.raises(Unavailable, match="no route to host") as caught:
        learner.share(1, digest)
    assert caught.value.reason == "DEPOT_AWAY"
    with pytest.raises(Unavailable):
        server.read(1, digest)


def test_a_url_that_nobody_understands_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidConfig, match="install its package"):
        Depot("carrierpigeon://loft/policies")


def test_fetched_versions_beyond_the_bound_go_the_longest_unused_first(
    learner: PolicyFolder, server: PolicyFolder
) -> None:
    digests = {version: publish(learner.root, version) for version in (1, 2, 3, 4)}
    own = publish(server.root, 9)
    for version, digest in digests.items():
        learner.share(version, digest)
        server.read(version, digest)
        os.utime(manifest.directory(server.root, version) / "fetched", (version, version))
    server.read(1, digests[1])  # used just now
    one = sum(file.stat().st_size for file in manifest.directory(server.root, 1).iterdir())
    bounded = PolicyFolder(server.root, most_bytes=2 * one + one // 2)
    assert bounded.prune(keep={2}) == [3, 4]
    assert sorted(path.name for path in server.root.iterdir()) == ["v000001", "v000002", "v000009"]
    assert server.read(3, digests[3])[0].version == 3  # and comes back
    assert PolicyFolder(server.root, most_bytes=1).prune(keep=()) == [2, 1, 3]
    assert manifest.read(server.root, 9, own)[0].version == 9  # published here: never deleted
    assert PolicyFolder(learner.root, most_bytes=1).prune(keep=()) == []


def test_a_depot_that_hangs_holds_up_nobody_who_reads_what_is_here(learner: PolicyFolder, place: str) -> None:
    here, asked, answered = publish(learner.root, 1), threading.Event(), threading.Event()

    class Hanging(Depot):
        def get(self, digest: str) -> None:
            asked.set()
            answered.wait(20)

    folder = PolicyFolder(learner.root, Hanging(place))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(folder.read, 2, "0" * 64)
        assert asked.wait(10)
        assert folder.read(1, here)[0].version == 1
        assert not waiting.done()
        answered.set()
        assert isinstance(waiting.exception(10), PolicyRejected)


def test_without_a_bound_nothing_goes(learner: PolicyFolder, server: PolicyFolder) -> None:
    digest = publish(learner.root, 1)
    learner.share(1, digest)
    server.read(1, digest)
    assert server.prune(keep=()) == []
