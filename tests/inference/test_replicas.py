"""A primary and its replicas, each a registry of its own with engines of three lines, joined by their real code."""

from __future__ import annotations

import asyncio
import queue
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from iterpo.config import ReplicaSettings
from iterpo.errors import PolicyRejected, Unavailable, WrongState
from iterpo.policies import manifest
from iterpo.policies.canary import Arm, Judgement, Verdict
from iterpo.policies.folder import PolicyFolder
from iterpo.policies.replicas import Quorum, Report, View, quorum
from iterpo.types import GateDecision, PolicyState
from services.inference import follower as following
from services.inference.follower import Follower
from services.inference.replicas import Replicas
from tests.inference.test_registry import YES, started, states
from tests.policies.builders import publish


class Line:
    """The primary as a replica's client sees it; `cut` is a network that is gone."""

    def __init__(self, replicas: Replicas, root: Path) -> None:
        self._replicas, self._root = replicas, root
        self._loop = asyncio.get_running_loop()
        self.cut = self._stopped = False
        self._views: queue.Queue[View | None] = queue.Queue()
        self._pumping = self._loop.create_future()
        self.fetched: list[int] = []
        self.tampers = False

    def watch(self, replica: str) -> Iterator[View]:
        views = self._views = queue.Queue()

        async def pump() -> None:
            try:
                async with aclosing(self._replicas.watch(replica)) as stream:
                    async for view in stream:
                        views.put(view)
            finally:
                views.put(None)

        self._check()
        self._pumping = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        if self._stopped:
            self.drop()
        while (view := views.get(timeout=20)) is not None:
            yield view
        raise Unavailable("The line is cut.", "Wait.")

    def stop_watching(self) -> None:
        self._stopped = True
        self.drop()

    def drop(self) -> None:
        """The stream breaks."""
        self._pumping.cancel()
        self._views.put(None)

    def fetch(self, version: int, digest: str) -> dict[str, bytes]:
        self._check()
        self.fetched.append(version)
        files = manifest.read_raw(self._root, version, digest)
        if self.tampers:
            files["adapter_model.safetensors"] = files["adapter_model.safetensors"][:-1] + b"\x01"
        return files

    def report(self, report: Report) -> None:
        self._check()
        self._loop.call_soon_threadsafe(self._replicas.report, report)

    def _check(self) -> None:
        if self.cut:
            raise Unavailable("The line is cut.", "Wait.")


class Fleet:
    """A primary, and replicas that come and go."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, share: float = 0.0, run_slots: int = 0, **settings) -> None:
        (self.folder / "primary").mkdir()
        slots = {"run_slots": run_slots} if run_slots else {}
        self.primary, _ = await started(self.folder / "primary", share, **slots)
        self.root = self.folder / "primary" / "policies"
        self.replicas = Replicas(self.primary, ReplicaSettings(**({"patience_seconds": 5.0} | settings)))

    async def join(self, name: str, **delivery):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        registry, _ = await started(folder, **delivery)
        line = Line(self.replicas, self.root)
        follower = Follower(registry, line, name, PolicyFolder(folder / "policies"))
        self._tasks.append(asyncio.create_task(follower.run()))
        return registry, line

    async def load(self, version: int) -> None:
        await self.primary.load(version, publish(self.root, version))

    async def promote(self, version: int, decision: GateDecision = YES) -> None:
        """As PolicyServicer does."""
        await self.replicas.agree(version)
        await self.primary.promote(version, decision, f"promote {version}")

    async def end(self) -> None:
        self.replicas.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def fleet(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "REPORT_SECONDS", 0.02)
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.02)
    made = Fleet(tmp_path)
    yield made
    await made.end()


async def soon(true, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def test_replicas_fetch_prove_and_serve_what_the_primary_serves(fleet) -> None:
    await fleet.begin()
    one, line = await fleet.join("one")
    two, _ = await fleet.join("two")
    await soon(lambda: len(fleet.replicas.listed()) == 2)
    await fleet.load(1)
    await fleet.promote(1)
    assert one.is_ready(1)  # a promotion waits for them
    assert two.is_ready(1)
    await soon(lambda: one.serving.version == two.serving.version == 1)
    assert one.get(1).proof.proved
    assert one.get(1).decision == YES
    assert line.fetched == [1]
    await soon(lambda: all(report.serving == 1 for report, _ in fleet.replicas.listed()))


async def test_a_rollback_reaches_them_too(fleet) -> None:
    await fleet.begin()
    one, _ = await fleet.join("one")
    for version in (1, 2):
        await fleet.load(version)
        await fleet.promote(version)
        await soon(lambda version=version: one.serving.version == version)
    await fleet.primary.rollback("back")
    await soon(lambda: one.serving.version == 1)
    assert states(one)[2] is PolicyState.PREVIOUS


async def test_a_replica_that_joins_late_or_was_away_converges_by_itself(fleet) -> None:
    await fleet.begin()
    for version in (1, 2, 3):
        await fleet.load(version)
        await fleet.promote(version)
    late, line = await fleet.join("late")
    await soon(lambda: late.serving.version == 3)
    assert line.fetched == [3]
    line.cut = True
    line.drop()
    await soon(lambda: not any(connected for _, connected in fleet.replicas.listed()))
    await fleet.load(4)
    await fleet.promote(4)  # nobody is connected: nobody is waited for
    assert late.serving.version == 3  # what served goes on serving
    line.cut = False
    await soon(lambda: late.serving.version == 4)


async def test_what_lies_there_already_is_not_fetched(fleet) -> None:
    await fleet.begin()
    await fleet.load(1)
    await fleet.promote(1)
    (fleet.folder / "one").mkdir()
    shutil.copytree(fleet.root, fleet.folder / "one" / "policies")
    one, line = await fleet.join("one")
    await soon(lambda: one.serving.version == 1)
    assert line.fetched == []


async def test_files_that_were_changed_on_the_way_are_refused_and_never_served(fleet) -> None:
    await fleet.begin()
    one, line = await fleet.join("one")
    line.tampers = True
    await soon(lambda: len(fleet.replicas.listed()) == 1)
    await fleet.load(1)
    await fleet.promote(1)  # the rule of the default: promoted where it is proved
    await soon(lambda: fleet.replicas.listed()[0][0].refused == {1: "DIGEST_MISMATCH"})
    assert (fleet.primary.serving.version, one.serving.version) == (1, 0)


async def test_a_replica_whose_engine_computes_something_else_refuses(fleet) -> None:
    await fleet.begin(missed="refuse")
    one, _ = await fleet.join("one", broken=True)
    await soon(lambda: len(fleet.replicas.listed()) == 1)
    await fleet.load(1)
    with pytest.raises(WrongState, match="one have not") as refused:
        await fleet.promote(1)
    assert refused.value.reason == "QUORUM_MISSED"
    assert (fleet.primary.serving.version, one.serving.version) == (0, 0)
    assert fleet.replicas.listed()[0][0].refused == {1: "PROBE_UNCHANGED"}


@pytest.mark.parametrize(("missed", "serving"), [("promote", 1), ("refuse", 0)])
async def test_a_replica_that_says_nothing_is_waited_for_and_then_the_rule_holds(fleet, missed, serving) -> None:
    await fleet.begin(missed=missed, patience_seconds=0.1)
    _, line = await fleet.join("silent")
    await soon(lambda: len(fleet.replicas.listed()) == 1)
    line.cut = True  # it hears, but nothing comes back
    await fleet.load(1)
    if missed == "refuse":
        with pytest.raises(WrongState):
            await fleet.promote(1)
    else:
        await fleet.promote(1)
    assert fleet.primary.serving.version == serving


async def test_a_quorum_is_enough(fleet) -> None:
    await fleet.begin(quorum=0.5, missed="refuse")
    good, _ = await fleet.join("good")
    await fleet.join("broken", broken=True)
    await soon(lambda: len(fleet.replicas.listed()) == 2)
    await fleet.load(1)
    await fleet.promote(1)
    await soon(lambda: good.serving.version == 1)

    def refused() -> dict[str, dict[int, str]]:
        return {report.replica: report.refused for report, _ in fleet.replicas.listed()}

    # Half of them sufficed, so the other's word may come after the promotion.
    await soon(lambda: refused() == {"good": {}, "broken": {1: "PROBE_UNCHANGED"}})


async def test_the_canary_is_the_canary_everywhere_and_the_replicas_requests_count(fleet) -> None:
    await fleet.begin(share=0.25)
    one, _ = await fleet.join("one")
    await fleet.load(1)
    await fleet.promote(1, GateDecision(True, (), {"by_hand": 1.0}))
    await soon(lambda: one.serving.version == 1)
    await fleet.load(2)
    await fleet.promote(2)
    await soon(lambda: one.trial is not None)
    users = [f"user-{n}" for n in range(200)]
    here, there = ([r.lease("", user).version.version for user in users] for r in (fleet.primary, one))
    assert here == there  # a user gets the same answer's version wherever he lands
    assert set(here) == {1, 2}
    for user in users:
        with one.lease("", user):
            pass
    await soon(lambda: fleet.replicas.tally(2).canary == Arm(answered=here.count(2)))
    assert fleet.replicas.tally(2).serving == Arm(answered=here.count(1))
    await fleet.primary.conclude(fleet.primary.trial, Judgement(Verdict.PROMOTE, (), {}))
    await soon(lambda: one.serving.version == 2 and one.trial is None)


async def test_a_replica_that_joins_during_a_canary_or_beside_a_candidate_converges(fleet) -> None:
    """Two engines, three versions: each gets its role before the next may need room."""
    await fleet.begin(share=0.25)
    await fleet.load(1)
    await fleet.promote(1, GateDecision(True, (), {"by_hand": 1.0}))
    await fleet.load(2)
    beside, _ = await fleet.join("beside")
    await soon(lambda: beside.serving.version == 1 and beside.is_ready(2))
    await fleet.promote(2)
    late, _ = await fleet.join("late")
    await soon(lambda: late.serving.version == 1 and late.trial is not None)
    await soon(lambda: beside.trial is not None)
    assert late.trial.version == beside.trial.version == 2


async def test_a_canary_that_was_refused_while_a_replica_was_away_does_not_keep_it_from_converging(fleet) -> None:
    await fleet.begin(share=0.25)
    one, line = await fleet.join("one")
    await fleet.load(1)
    await fleet.promote(1, GateDecision(True, (), {"by_hand": 1.0}))
    await fleet.load(2)
    await fleet.promote(2)
    await soon(lambda: one.trial is not None)
    line.cut = True
    line.drop()
    await soon(lambda: not any(connected for _, connected in fleet.replicas.listed()))
    await fleet.primary.rollback("away with it", "worse")
    await fleet.load(3)
    await fleet.promote(3, GateDecision(True, (), {"by_hand": 1.0}))
    line.cut = False
    await soon(lambda: one.serving.version == 3 and one.trial is None)
    assert states(one)[2] is PolicyState.REJECTED


async def test_a_number_that_was_other_bytes_here_is_refused_and_not_served(fleet) -> None:
    await fleet.begin()
    (fleet.folder / "one").mkdir()
    old, _ = await started(fleet.folder / "one")
    await old.load(1, publish(fleet.folder / "one" / "policies", 1, b=2.0))
    await old.promote(1, YES, "r1")
    await fleet.load(1)
    await fleet.promote(1)
    one, line = await fleet.join("one")  # of the same data_dir: it comes back on its own version 1
    await soon(lambda: any(1 in report.refused for report, _ in fleet.replicas.listed()))
    assert fleet.replicas.listed()[0][0].refused == {1: "VERSION_REUSED"}
    assert line.fetched == []
    assert one.get(1).digest != fleet.primary.get(1).digest


async def test_a_damaged_copy_is_fetched_anew(fleet) -> None:
    await fleet.begin()
    await fleet.load(1)
    await fleet.promote(1)
    (fleet.folder / "one").mkdir()
    shutil.copytree(fleet.root, fleet.folder / "one" / "policies")
    (fleet.folder / "one" / "policies" / "v000001" / "adapter_model.safetensors").write_bytes(b"damaged")
    one, line = await fleet.join("one")
    await soon(lambda: one.serving.version == 1)
    assert line.fetched == [1]


async def test_what_the_gate_refused_answers_nobody_at_a_replica_either(fleet) -> None:
    await fleet.begin()
    one, _ = await fleet.join("one")
    await fleet.load(1)
    await soon(lambda: one.is_ready(1))
    await fleet.primary.retire(1, GateDecision(False, ("worse",), {"heldout_gain": -1.0}), "no")
    await soon(lambda: states(one)[1] is PolicyState.REJECTED)
    with pytest.raises(WrongState):
        one.lease("1")


async def test_a_canary_that_is_rolled_back_leaves_the_replicas(fleet) -> None:
    await fleet.begin(share=0.25)
    one, _ = await fleet.join("one")
    await fleet.load(1)
    await fleet.promote(1)
    await soon(lambda: one.trial is not None)
    await fleet.primary.rollback("back", "worse")
    await soon(lambda: one.trial is None)
    assert one.serving.version == 0
    await soon(lambda: not one.get(1).decision.promote)


async def test_another_base_is_refused_whole(fleet) -> None:
    await fleet.begin()
    await fleet.load(1)
    await fleet.promote(1)
    fleet.primary.base_digest = "d" * 64
    one, line = await fleet.join("one")
    await soon(lambda: any(report.refused for report, _ in fleet.replicas.listed()))
    assert fleet.replicas.listed()[0][0].refused[1] == "BASE_MISMATCH"
    assert (line.fetched, one.serving.version) == ([], 0)


async def test_raw_files_are_verified_before_they_leave(tmp_path) -> None:
    digest = publish(tmp_path, 1)
    assert set(manifest.read_raw(tmp_path, 1, digest)) == {"manifest.json", *manifest.ADAPTER_FILES}
    with pytest.raises(PolicyRejected):
        manifest.read_raw(tmp_path, 1, "0" * 64)


def test_the_quorum_by_hand() -> None:
    yes, no, late = Report("a", proved={7: "d"}), Report("b", refused={7: "X"}), Report("c")
    for reports, share, found in (
        ([], 1.0, Quorum.REACHED),
        ([yes, yes], 1.0, Quorum.REACHED),
        ([yes, late], 1.0, Quorum.OPEN),
        ([yes, no], 1.0, Quorum.MISSED),
        ([yes, no, late], 0.5, Quorum.OPEN),  # two of three
        ([yes, no], 0.5, Quorum.REACHED),
        ([late], 0.0, Quorum.REACHED),
    ):
        assert quorum(7, "d", reports, share) is found
    assert quorum(7, "other bytes", [yes], 1.0) is Quorum.OPEN
