"""Runs side by side: each has a version of its own, `run/NAME`, and what serves does not notice."""

from __future__ import annotations

import asyncio

import pytest

from iterpo.errors import Conflict, InvalidInput, NotFound, ResourceExhausted, WrongState
from iterpo.types import GateDecision, PolicyState
from tests.inference.test_registry import NO, YES, serve, started, states
from tests.inference.test_replicas import fleet, soon  # noqa: F401  (a fixture)
from tests.policies.builders import publish


async def beside(registry, tmp_path, version: int, run: str) -> None:
    await registry.load(version, publish(tmp_path / "policies", version, run_id=run))
    await registry.promote(version, YES, f"promote {version} for {run}", run)


async def test_a_run_has_its_own_version_and_what_serves_stays(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await serve(registry, tmp_path, 1)
    await registry.promote(1, YES, "a begins", "a")
    await beside(registry, tmp_path, 2, "a")
    await beside(registry, tmp_path, 3, "b")
    assert (registry.serving.version, registry.resolve("previous")) == (1, 0)
    assert (registry.resolve("run/a"), registry.resolve("run/b")) == (2, 3)
    with registry.lease("run/a") as lease:
        assert lease.version.version == 2
    assert states(registry)[2] is PolicyState.PROVED
    assert registry.get(2).decision == YES
    with pytest.raises(NotFound, match="There is no candidate"):
        registry.resolve("candidate")  # a run's version waits for nobody


async def test_a_runs_next_version_takes_the_place_of_the_one_before(tmp_path):
    registry, delivery = await started(tmp_path, run_slots=1)
    for version in range(1, 20):
        await beside(registry, tmp_path, version, "a")
        await serve(registry, tmp_path, 100 + version)
    assert registry.resolve("run/a") == 19
    assert delivery.loaded() == {0, 19, 118, 119}
    assert states(registry)[18] is PolicyState.RETIRED


async def test_two_runs_candidates_do_not_push_each_other_out(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    for version, run in ((1, "a"), (2, "b")):
        await beside(registry, tmp_path, version, run)
    await registry.load(3, publish(tmp_path / "policies", 3, run_id="a"))
    await registry.load(4, publish(tmp_path / "policies", 4, run_id="b"))
    await registry.load(5, publish(tmp_path / "policies", 5))
    assert all(map(registry.is_ready, (1, 2, 3, 4, 5)))
    await registry.promote(3, YES, "r3", "a")
    await registry.retire(4, NO, "r4")
    assert (registry.resolve("run/a"), registry.resolve("run/b")) == (3, 2)
    assert states(registry)[4] is PolicyState.REJECTED


async def test_candidates_that_nobody_decides_about_go_when_there_is_no_room_and_heads_stay(tmp_path):
    registry, delivery = await started(tmp_path, run_slots=1)
    await beside(registry, tmp_path, 1, "a")
    await serve(registry, tmp_path, 2)
    for version in range(3, 30):
        await registry.load(version, publish(tmp_path / "policies", version))
    assert {0, 1, 2, 29} <= delivery.loaded()
    assert (registry.resolve("run/a"), registry.serving.version, registry.resolve("candidate")) == (1, 2, 29)


async def test_a_run_may_begin_at_the_base_and_at_what_serves(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await registry.promote(0, YES, "a begins", "a")
    assert registry.resolve("run/a") == 0
    await serve(registry, tmp_path, 1)
    await registry.promote(1, YES, "b begins", "b")
    await serve(registry, tmp_path, 2)
    await serve(registry, tmp_path, 3)
    assert states(registry)[1] is PolicyState.PROVED, "it neither serves nor is the one before, but b stands on it"
    with registry.lease("run/b") as lease:
        assert lease.version.version == 1


async def test_traffic_is_split_between_runs_and_a_users_part_stays_the_same(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await beside(registry, tmp_path, 1, "a")
    await beside(registry, tmp_path, 2, "b")
    users = [f"u{i}" for i in range(400)]
    first = [registry.lease("run/a=0.5,run/b=0.5", user).version.version for user in users]
    assert 150 < first.count(1) < 250
    assert first == [registry.lease("run/a=0.5,run/b=0.5", user).version.version for user in users]


async def test_a_restart_brings_every_runs_version_back(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await serve(registry, tmp_path, 1)
    await beside(registry, tmp_path, 2, "a")
    await beside(registry, tmp_path, 3, "b")
    (tmp_path / "policies" / "v000003" / "adapter_model.safetensors").write_bytes(b"spoiled")
    again, _ = await started(tmp_path, run_slots=2)
    assert (again.serving.version, again.heads) == (1, {"a": 2})
    assert again.is_ready(2)
    assert states(again)[3] is PolicyState.REJECTED


async def test_a_retired_version_takes_its_runs_name_along(tmp_path):
    registry, delivery = await started(tmp_path, run_slots=1)
    await beside(registry, tmp_path, 1, "a")
    with pytest.raises(ResourceExhausted, match="iterpo policies retire") as full:
        await beside(registry, tmp_path, 2, "b")
    assert full.value.reason == "NO_RUN_SLOTS"
    await registry.retire(1, None, "r1")
    assert 1 not in delivery.loaded()
    with pytest.raises(NotFound, match="There is none"):
        registry.resolve("run/a")
    await registry.promote(2, YES, "again", "b")
    assert registry.resolve("run/b") == 2


async def test_a_version_that_serves_too_stays_a_runs_and_the_other_way_round(tmp_path):
    registry, _ = await started(tmp_path, run_slots=1)
    await beside(registry, tmp_path, 1, "a")
    await registry.promote(1, YES, "to everybody")
    assert states(registry)[1] is PolicyState.SERVING
    await beside(registry, tmp_path, 2, "a")
    assert states(registry)[1] is PolicyState.SERVING, "it lost the run's name, not its place"
    await registry.promote(1, YES, "back again", "a")
    await serve(registry, tmp_path, 3)
    await serve(registry, tmp_path, 4)
    assert registry.resolve("run/a") == 1
    assert registry.is_ready(1)


async def test_nothing_is_promoted_for_a_run_that_is_not_gated_not_loaded_or_has_no_place(tmp_path):
    registry, _ = await started(tmp_path, run_slots=1)
    digest = publish(tmp_path / "policies")
    with pytest.raises(NotFound):
        await registry.promote(1, YES, "r1", "a")
    await registry.load(1, digest)
    with pytest.raises(WrongState) as refused:
        await registry.promote(1, GateDecision(False, ("worse",), {"heldout_gain": -1.0}), "r2", "a")
    assert refused.value.reason == "NOT_GATED"
    assert registry.heads == {}
    with pytest.raises(InvalidInput, match="run/NAME"):
        registry.resolve("a")


async def test_merged_delivery_says_what_runs_side_by_side_need(tmp_path):
    registry, _ = await started(tmp_path)
    await registry.load(1, publish(tmp_path / "policies"))
    with pytest.raises(WrongState, match=r"inference\.run_slots") as refused:
        await registry.promote(1, YES, "r1", "a")
    assert refused.value.reason == "NO_RUN_SLOTS"


async def test_a_promotion_for_a_run_that_comes_twice_is_made_once(tmp_path):
    registry, _ = await started(tmp_path, run_slots=1)
    await beside(registry, tmp_path, 1, "a")
    await beside(registry, tmp_path, 2, "a")
    assert await registry.promote(1, YES, "promote 1 for a", "a") == 0.0
    assert registry.resolve("run/a") == 2


async def test_a_canary_and_a_run_do_not_meet(tmp_path):
    registry, _ = await started(tmp_path, canary_share=0.5, run_slots=1)
    await registry.load(1, publish(tmp_path / "policies"))
    await registry.promote(1, YES, "canary")
    await beside(registry, tmp_path, 2, "a")
    assert (registry.trial.version, registry.resolve("run/a"), registry.serving.version) == (1, 2, 0)
    for user in ("u1", "u2", "u3"):
        with registry.lease("run/a", user):
            pass
    assert registry.trial.tally.canary.answered == registry.trial.tally.serving.answered == 0


async def test_replicas_serve_the_runs_of_their_primary(fleet) -> None:  # noqa: F811
    await fleet.begin(run_slots=2)
    one, _ = await fleet.join("one", run_slots=2)
    merged, _ = await fleet.join("merged")
    await fleet.load(1)
    await fleet.promote(1)
    await fleet.load(2)
    await fleet.primary.promote(2, YES, "for a", "a")
    await soon(lambda: one.heads == {"a": 2})
    assert (one.serving.version, one.is_ready(2)) == (1, True)
    await fleet.load(3)
    await fleet.primary.promote(3, YES, "for a, later", "a")
    await soon(lambda: one.heads == {"a": 3})
    await fleet.primary.retire(3, None, "enough")
    await soon(lambda: one.heads == {})
    assert merged.heads == {}, "it has no slots, and goes on without"
    assert merged.serving.version == 1


async def test_a_replica_answers_for_a_run_with_the_version_before_until_it_has_the_next(fleet) -> None:  # noqa: F811
    await fleet.begin(run_slots=2)
    one, line = await fleet.join("one", run_slots=2)
    await fleet.load(1)
    await fleet.primary.promote(1, YES, "for a", "a")
    await soon(lambda: one.heads == {"a": 1})
    line.tampers = True  # whatever it fetches now, it refuses
    await fleet.load(2)
    await fleet.primary.promote(2, YES, "for a, later", "a")
    await soon(lambda: "DIGEST_MISMATCH" in fleet.replicas.listed()[0][0].refused.values())
    with one.lease("run/a") as lease:
        assert lease.version.version == 1


async def test_a_replica_without_slots_does_not_load_what_it_cannot_serve(fleet) -> None:  # noqa: F811
    await fleet.begin(run_slots=2)
    merged, _ = await fleet.join("merged")
    await serve(fleet.primary, fleet.folder / "primary", 1)
    await soon(lambda: merged.serving.version == 1)
    await fleet.load(2)
    await fleet.primary.promote(2, YES, "for a", "a")
    await fleet.load(3)
    await soon(lambda: merged.is_ready(3))
    for _ in range(10):  # its second engine would go to and fro between the two
        fleet.primary.announce()
        await asyncio.sleep(0.02)
        assert (merged.is_ready(2), merged.is_ready(3)) == (False, True)


async def test_names_for_which_there_is_no_slot_after_a_restart_are_given_up(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await serve(registry, tmp_path, 1)
    await beside(registry, tmp_path, 2, "a")
    await beside(registry, tmp_path, 3, "b")
    fewer, _ = await started(tmp_path, run_slots=1)
    assert fewer.heads == {"a": 2}
    merged, delivery = await started(tmp_path)
    assert merged.heads == {}
    await merged.load(4, publish(tmp_path / "policies", 4))
    assert delivery.loaded() == {1, 4}


async def test_a_name_is_taken_from_a_run_whatever_it_names(tmp_path):
    registry, delivery = await started(tmp_path, run_slots=2)
    await serve(registry, tmp_path, 1)
    await registry.promote(0, YES, "a begins", "a")
    await registry.promote(1, YES, "b begins", "b")
    await registry.release("a", "r1")
    assert registry.heads == {"b": 1}
    assert (await registry.release("b", "r2")).version == 1
    assert (registry.heads, registry.serving.version) == ({}, 1)
    assert (await registry.release("b", "r2")).version == 1, "the same request again"
    with pytest.raises(NotFound):
        await registry.release("b", "r3")
    await beside(registry, tmp_path, 2, "a")
    await registry.release("a", "r4")
    assert 2 not in delivery.loaded()


async def test_a_runs_version_that_a_rollback_would_return_to_is_both_after_a_restart(tmp_path):
    registry, _ = await started(tmp_path, run_slots=1)
    await beside(registry, tmp_path, 1, "a")
    await registry.promote(1, YES, "to everybody")
    await serve(registry, tmp_path, 2)
    again, _ = await started(tmp_path, run_slots=1)
    assert (states(again)[1], again.heads) == (PolicyState.PREVIOUS, {"a": 1})
    await beside(again, tmp_path, 3, "a")
    assert states(again)[1] is PolicyState.PREVIOUS
    assert again.candidate == 0


async def test_a_decision_by_hand_is_kept_and_a_beginning_is_none(tmp_path):
    registry, _ = await started(tmp_path, run_slots=1)
    await registry.load(1, publish(tmp_path / "policies", 1, run_id="a"))
    by_hand = GateDecision(True, ("by hand",), {"by_hand": 1.0})
    await registry.promote(1, by_hand, "r1", "b")
    assert registry.get(1).decision == by_hand
    await registry.promote(1, YES, "r3", "b")
    assert registry.get(1).decision == YES
    await registry.promote(1, by_hand, "r4", "b")
    assert registry.get(1).decision == GateDecision(True, ("by hand",), {"heldout_gain": 0.1, "by_hand": 1.0})
    by_hand = registry.get(1).decision
    await registry.promote(1, GateDecision(True, ("b begins here",), {"begins": 1.0}), "r2", "b")
    assert registry.get(1).decision == by_hand


async def test_a_request_id_means_one_run(tmp_path):
    registry, _ = await started(tmp_path, run_slots=2)
    await beside(registry, tmp_path, 1, "a")
    for run in ("b", ""):
        with pytest.raises(Conflict) as reused:
            await registry.promote(1, YES, "promote 1 for a", run)
        assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_only_what_would_be_answered_is_named(tmp_path):
    registry, _ = await started(tmp_path)
    assert registry.names() == ["serving", "previous", "base"]
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)  # merged delivery: the base has made room
    assert registry.names() == ["serving", "previous"]
    slotted, _ = await started(tmp_path / "other", run_slots=1)
    await slotted.promote(0, YES, "a begins", "a")
    assert slotted.names() == ["serving", "previous", "base", "run/a"]


async def test_a_version_may_be_written_with_a_v_and_forgets_a_rollback_when_it_serves_again(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    assert registry.resolve("v1") == 1
    await registry.rollback("back", "worse")
    assert registry.get(1).reason == "rolled back: worse"
    await registry.promote(1, YES, "again")
    assert registry.get(1).reason == ""
