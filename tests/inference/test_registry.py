"""Who serves: states, pins, proofs, swaps and restarts, with engines that are three lines each."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from iterpo import wire
from iterpo.clients.inference import PolicyClient
from iterpo.errors import Conflict, InvalidInput, NotFound, PolicyRejected, Unavailable, WrongState
from iterpo.policies import manifest
from iterpo.policies.folder import PolicyFolder
from iterpo.types import GateDecision, PolicyState
from iterpo.v1 import policy_pb2
from services.inference.delivery import LORA_SLOTS, RUN_SLOTS, AdapterDelivery, MergedDelivery, Source, not_loaded
from services.inference.prover import Prover
from services.inference.registry import PolicyRegistry
from tests.policies.builders import BASE, BASE_DIGEST, SEQUENCES, probe, publish, shifted

YES = GateDecision(True, (), {"heldout_gain": 0.1})
NO = GateDecision(False, ("worse",), {"heldout_gain": -0.3})


@dataclass
class FakeEngine:
    """Answers the probe with the log-probs that it was told."""

    answers: dict

    async def score(self, token_ids, lora):
        return list(self.answers[tuple(token_ids)])


@dataclass
class FakeDelivery:
    """Two places, as merged delivery has; `broken` makes installed weights answer like the base."""

    name: str = "merged"
    run_slots: int = 0
    broken: bool = False
    places: list = field(default_factory=lambda: [0, None])
    log: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)

    async def start(self):
        self.log.append("start")

    def source(self, version):
        if version not in self.places:
            raise not_loaded(version)
        rows = BASE if version == 0 or self.broken else shifted()
        return Source(FakeEngine(dict(zip(SEQUENCES, rows, strict=True))))

    def loaded(self):
        return {v for v in self.places if v is not None}

    def evictions(self, serving, previous):
        merged = MergedDelivery(Path(), Path(), 16, lambda: None)
        merged._versions = self.places
        return merged.evictions(serving, previous)

    async def install(self, version, adapter, files):
        self.places[self.places.index(None)] = version
        self.log.append(f"install {version}")

    async def fingerprint(self, version):
        return self.weights.get(version, f"weights of {version}")

    async def remove(self, version):
        self.places = [None if v == version else v for v in self.places]
        self.log.append(f"remove {version}")


@dataclass
class FakeSlots(FakeDelivery):
    """Slots beside the base, as adapter delivery has."""

    name: str = "adapter"
    run_slots: int = 2
    places: list = field(default_factory=lambda: [0] + [None] * (LORA_SLOTS + 2 * RUN_SLOTS))

    def evictions(self, serving, previous):
        slots = AdapterDelivery(Path(), lambda _slots: None, self.run_slots)
        slots._loras = {version: None for version in self.places if version}
        return slots.evictions(serving, previous)


async def started(tmp_path, canary_share: float = 0.0, **delivery) -> tuple[PolicyRegistry, FakeDelivery]:
    kind = FakeSlots if "run_slots" in delivery else FakeDelivery
    fake = kind(**delivery)
    root = tmp_path / "policies"
    root.mkdir(parents=True, exist_ok=True)
    prover = Prover(PolicyFolder(root), BASE_DIGEST, SEQUENCES, max_rank=16)
    registry = PolicyRegistry(tmp_path / "state.json", fake, prover, canary_share)
    await registry.start()
    return registry, fake


async def serve(registry: PolicyRegistry, tmp_path, version: int) -> None:
    await registry.load(version, publish(tmp_path / "policies", version))
    await registry.promote(version, YES, f"promote {version}")


def states(registry: PolicyRegistry) -> dict[int, PolicyState]:
    return {policy.version: policy.state for policy, _ in registry.listed()}


async def test_a_loaded_version_is_proved_and_serves_only_once_it_is_promoted(tmp_path):
    registry, _ = await started(tmp_path)
    policy = await registry.load(1, publish(tmp_path / "policies"))
    assert (policy.state, policy.proof.proved, registry.serving.version) == (PolicyState.PROVED, True, 0)
    await registry.promote(1, YES, "r1")
    assert registry.serving.version == 1
    assert states(registry) == {0: PolicyState.PREVIOUS, 1: PolicyState.SERVING}


async def refusal(registry, version, digest) -> str:
    before = registry.serving
    with pytest.raises(PolicyRejected) as caught:
        await registry.load(version, digest)
    assert registry.serving == before
    return caught.value.reason


async def test_each_bad_delivery_is_refused_for_its_own_reason_and_the_serving_version_stays(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    root = tmp_path / "policies"

    flipped = publish(root, 2)
    path = root / "v000002" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert await refusal(registry, 2, flipped) == "DIGEST_MISMATCH"

    truncated = publish(root, 3)
    path = root / "v000003" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    assert await refusal(registry, 3, truncated) == "DIGEST_MISMATCH"

    other = manifest.Manifest(4, "c" * 64, probe())
    assert await refusal(registry, 4, publish(root, 4, other)) == "BASE_MISMATCH"
    assert await refusal(registry, 5, publish(root, 5, b=0.0)) == "ALL_ZERO"

    stale = publish(root, 6)
    shutil.rmtree(root / "v000006")
    publish(root, 6, b=3.0)
    assert await refusal(registry, 6, stale) == "STALE_MANIFEST"
    assert states(registry)[1] is PolicyState.SERVING
    assert {states(registry)[v] for v in (2, 3, 4, 5)} == {PolicyState.REJECTED}
    assert 6 not in states(registry)  # the bytes that were announced were never seen


async def test_weights_that_never_reached_the_engine_are_found_by_the_probe(tmp_path):
    registry, delivery = await started(tmp_path, broken=True)
    assert await refusal(registry, 1, publish(tmp_path / "policies")) == "PROBE_UNCHANGED"
    assert delivery.places == [0, None]


async def test_a_rejected_version_stays_rejected(tmp_path):
    registry, _ = await started(tmp_path)
    digest = publish(tmp_path / "policies", b=0.0)
    assert await refusal(registry, 1, digest) == "ALL_ZERO"
    assert await refusal(registry, 1, digest) == "POLICY_REJECTED"


async def test_a_version_number_is_used_once(tmp_path):
    registry, _ = await started(tmp_path)
    await registry.load(1, publish(tmp_path / "policies"))
    with pytest.raises(Conflict, match="next number"):
        await registry.load(1, "d" * 64)


async def test_nothing_is_promoted_ungated_or_unproved(tmp_path):
    registry, _ = await started(tmp_path)
    await registry.load(1, publish(tmp_path / "policies"))
    with pytest.raises(WrongState, match="not to promote"):
        await registry.promote(1, NO, "r1")
    for numbers in ({}, {"heldout_gain": float("nan")}):
        with pytest.raises(WrongState, match="no finite number") as caught:
            await registry.promote(1, GateDecision(True, (), numbers), "r1")
        assert caught.value.reason == "NOT_GATED"
    with pytest.raises(NotFound, match="no policy version 9"):
        await registry.promote(9, YES, "r2")
    assert registry.serving.version == 0


async def test_a_candidate_that_the_gate_refuses_is_rejected_with_its_numbers(tmp_path):
    registry, delivery = await started(tmp_path)
    await registry.load(1, publish(tmp_path / "policies"))
    policy = await registry.retire(1, NO)
    assert (policy.state, policy.reason, policy.decision) == (PolicyState.REJECTED, "GATE_REFUSED", NO)
    assert 1 not in delivery.loaded()


async def test_the_serving_version_cannot_be_retired(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    with pytest.raises(WrongState, match="roll back"):
        await registry.retire(1, None)


async def test_rollback_serves_the_previous_version_again_and_the_same_request_does_it_once(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    await registry.rollback("back")
    await registry.rollback("back")
    assert registry.serving.version == 1


async def test_rollback_loads_and_proves_a_version_that_made_room_for_a_candidate(tmp_path):
    registry, delivery = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    await registry.load(3, publish(tmp_path / "policies", 3))
    assert 1 not in delivery.loaded()
    await registry.rollback("back")
    assert registry.serving.version == 1
    assert registry.serving.proof.proved


async def test_rolling_back_to_the_base_works_when_the_base_made_room(tmp_path):
    registry, delivery = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await registry.load(2, publish(tmp_path / "policies", 2))
    assert 0 not in delivery.loaded()
    await registry.rollback("back")
    assert registry.serving.version == 0


async def test_an_id_is_for_one_request(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    await registry.rollback("back")
    assert await registry.promote(2, YES, "promote 2") == 0.0  # a retry that comes late
    assert registry.serving.version == 1
    with pytest.raises(Conflict, match="promote 2"):
        await registry.rollback("promote 2")


async def test_of_many_versions_the_newest_are_listed_with_what_serves_and_older_ones_on_request(tmp_path):
    registry, _ = await started(tmp_path)
    for version in range(1, 6):
        await serve(registry, tmp_path, version)
    await registry.rollback("back", "5 is worse")

    def numbers(newest: int = 0, below: int = 0) -> list[int]:
        return [policy.version for policy, _ in registry.listed(newest, below)]

    assert states(registry)[4] is PolicyState.SERVING
    assert numbers() == [0, 1, 2, 3, 4, 5]
    assert numbers(1) == [4, 5]
    assert numbers(2, below=4) == [2, 3]
    assert numbers(2, below=1) == [0]
    assert registry.total == 6


@pytest.mark.parametrize(("page", "calls"), [(2, 3), (3, 2), (6, 1), (100, 1)])
async def test_all_versions_are_read_in_parts_each_once(tmp_path, monkeypatch, page, calls):
    registry, _ = await started(tmp_path)
    for version in range(1, 6):
        await serve(registry, tmp_path, version)
    asked = []

    def listed(newest, below=0):
        asked.append(below)
        policies = [wire.policy_to_proto(policy) for policy, _ in registry.listed(newest, below)]
        return policy_pb2.ListPoliciesResponse(policies=policies, total=registry.total)

    client = PolicyClient(grpc.insecure_channel("127.0.0.1:1"))
    monkeypatch.setattr(client, "listed", listed)
    monkeypatch.setattr("iterpo.clients.inference.PAGE", page)
    assert [policy.version for policy in client.versions()] == [0, 1, 2, 3, 4, 5]
    assert len(asked) == calls


async def test_a_run_that_samples_from_its_reference_brings_the_base_back(tmp_path):
    """Merged delivery holds two versions: the candidate takes the base's place, and the next sample takes it back."""
    registry, delivery = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    assert 0 not in delivery.loaded()
    with pytest.raises(WrongState, match="not loaded"):
        async with registry.using("base"):
            pass
    async with registry.using("base", fetch_base=True) as lease:
        assert lease.version.version == 0
    assert registry.serving.version == 2
    await serve(registry, tmp_path, 3)  # and the next candidate finds its place again
    assert registry.serving.version == 3


async def test_the_base_can_be_promoted_by_hand_wherever_it_is(tmp_path):
    """One call back to where it all began, however many versions ago that was."""
    registry, delivery = await started(tmp_path)
    for version in (1, 2, 3):
        await serve(registry, tmp_path, version)
    assert 0 not in delivery.loaded()
    await registry.promote(0, GateDecision(True, ("by hand",), {"by_hand": 1.0}), "base")
    assert registry.serving.version == 0
    assert 0 in delivery.loaded()
    await registry.rollback("and back")
    assert registry.serving.version == 3


async def test_what_a_rollback_would_return_to_is_not_retired(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    with pytest.raises(WrongState, match="previous") as caught:
        await registry.retire(1, NO)
    assert caught.value.reason == "STILL_PREVIOUS"


async def test_a_load_goes_through_although_its_caller_hung_up(tmp_path):
    registry, _ = await started(tmp_path)
    caller = asyncio.create_task(registry.load(1, publish(tmp_path / "policies")))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(5):
        while states(registry).get(1) is not PolicyState.PROVED:
            await asyncio.sleep(0.01)
    await registry.promote(1, YES, "r1")
    assert registry.serving.version == 1


async def test_an_engine_that_fails_in_the_probe_leaves_nothing_unproved_behind(tmp_path):
    registry, delivery = await started(tmp_path)

    async def dies(token_ids, lora):
        raise Unavailable("The engine died.", "Try again.")

    delivery.source = lambda version: Source(type("Engine", (), {"score": staticmethod(dies)})())
    with pytest.raises(Unavailable, match="died"):
        await registry.load(1, publish(tmp_path / "policies"))
    assert delivery.loaded() == {0}
    assert 1 not in states(registry)


async def test_the_gates_decision_outlives_restarts_and_reloads(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    again, _ = await started(tmp_path)
    assert again.serving.decision == YES


async def test_without_a_previous_version_there_is_nothing_to_roll_back_to(tmp_path):
    registry, _ = await started(tmp_path)
    with pytest.raises(WrongState, match="no previous"):
        await registry.rollback("back")


async def test_a_request_keeps_the_version_it_started_on_and_its_place_until_it_ends(tmp_path):
    registry, delivery = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    async with registry.using("serving") as lease:
        await registry.load(2, publish(tmp_path / "policies", 2))
        await registry.promote(2, YES, "r2")
        assert (lease.version.version, registry.serving.version) == (1, 2)
        loading = asyncio.create_task(registry.load(3, publish(tmp_path / "policies", 3)))
        await asyncio.sleep(0.05)
        assert not loading.done()  # the only other place is still answering for version 1
        assert 1 in delivery.loaded()
    async with asyncio.timeout(5):
        assert (await loading).state is PolicyState.PROVED
    assert 1 not in delivery.loaded()


async def test_unloaded_versions_serve_nobody(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    await registry.load(3, publish(tmp_path / "policies", 3))
    with pytest.raises(WrongState, match="not loaded"):
        async with registry.using("1"):
            pass


async def test_aliases_name_roles(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await registry.load(2, publish(tmp_path / "policies", 2))
    assert [registry.resolve(a) for a in ("", "serving", "previous", "candidate", "base", "1")] == [1, 1, 0, 2, 0, 1]
    with pytest.raises(InvalidInput, match="serving, candidate"):
        registry.resolve("newest")


async def test_a_restarted_server_comes_back_on_the_version_it_served(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    await serve(registry, tmp_path, 2)
    again, delivery = await started(tmp_path)
    assert again.serving.version == 2
    assert again.serving.proof.proved
    assert delivery.log == ["start", "install 2"]
    await again.rollback("back")
    assert again.serving.version == 1


async def test_a_served_version_whose_files_were_damaged_gives_way_to_the_base_at_restart(tmp_path):
    registry, _ = await started(tmp_path)
    await serve(registry, tmp_path, 1)
    (tmp_path / "policies" / "v000001" / "adapter_model.safetensors").write_bytes(b"")
    again, _ = await started(tmp_path)
    assert again.serving.version == 0
    assert states(again)[1] is PolicyState.REJECTED
