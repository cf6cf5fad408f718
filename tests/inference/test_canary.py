"""A canary gets its share, its own users keep it, and its test's decision is carried out and kept."""

from __future__ import annotations

import asyncio
import shutil
import time

import pytest
from prometheus_client import CollectorRegistry

from iterpo.config import CanarySettings
from iterpo.errors import InvalidInput, NotFound, Unavailable, WrongState
from iterpo.policies.canary import Judgement, Verdict
from iterpo.types import (
    Completion,
    FeedbackEvent,
    FinishReason,
    GateDecision,
    Group,
    Message,
    PolicyState,
    Preference,
    Prompt,
    Reward,
)
from services.inference import canary
from services.inference.canary import CanaryKeeper, Thumb, Votes
from services.inference.metrics import InferenceMetrics
from tests.inference.test_registry import YES, started, states
from tests.policies.builders import publish

USERS = [f"user-{n}" for n in range(500)]
BAD = Judgement(Verdict.ROLLBACK, ("its answers fail",), {"canary_failed": 9.0})
GOOD = Judgement(Verdict.PROMOTE, (), {"canary_failed": 0.0})


async def with_canary(tmp_path, share: float = 0.2):
    """Version 1 serves, version 2 is the canary."""
    registry, delivery = await started(tmp_path, share)
    await registry.load(1, publish(tmp_path / "policies", 1))
    await registry.promote(1, GateDecision(True, (), {"by_hand": 1.0}), "r1")
    await registry.load(2, publish(tmp_path / "policies", 2))
    await registry.promote(2, YES, "r2")
    return registry, delivery


def version_of(registry, user: str | None, policy: str = "") -> int:
    return registry.lease(policy, user).version.version


async def test_a_promoted_version_becomes_the_canary_and_a_share_of_the_users_gets_it(tmp_path):
    registry, _ = await with_canary(tmp_path)
    assert states(registry) == {0: PolicyState.RETIRED, 1: PolicyState.SERVING, 2: PolicyState.CANARY}
    on_canary = {user for user in USERS if version_of(registry, user) == 2}
    assert 60 < len(on_canary) < 140  # 100 expected, standard deviation 9
    assert all(version_of(registry, user, "serving") == 2 for user in on_canary)
    # The learner, and whoever names a version, gets what he asked for.
    assert version_of(registry, None) == 1
    assert {version_of(registry, user, "1") for user in USERS[:20]} == {1}
    assert version_of(registry, USERS[0], "canary") == 2


async def test_what_became_of_live_requests_is_counted_for_its_own_side(tmp_path):
    registry, _ = await with_canary(tmp_path)
    users = {version_of(registry, user): user for user in USERS}
    for version in (1, 2):
        for error in (Unavailable("x", "y"), InvalidInput("x", "y"), asyncio.CancelledError()):
            with pytest.raises(type(error)), registry.lease("", users[version]):
                raise error
        with registry.lease("", users[version]):
            pass
    with registry.lease("2", "asked-for-it"):
        pass
    tally = registry.trial.tally
    assert (tally.canary.answered, tally.canary.failed) == (1, 1)
    assert (tally.serving.answered, tally.serving.failed) == (1, 1)


async def test_a_canary_that_passes_serves_and_the_decision_has_both_sets_of_numbers(tmp_path):
    registry, _ = await with_canary(tmp_path)
    assert await registry.conclude(registry.trial, GOOD)
    assert states(registry)[2] is PolicyState.SERVING
    assert states(registry)[1] is PolicyState.PREVIOUS
    assert registry.get(2).decision.numbers == {"heldout_gain": 0.1, "canary_failed": 0.0}
    assert {version_of(registry, user) for user in USERS[:50]} == {2}


async def test_a_canary_that_fails_is_rejected_for_good_and_nobody_else_notices(tmp_path):
    registry, _ = await with_canary(tmp_path)
    trial = registry.trial
    assert await registry.conclude(trial, BAD)
    entry = registry.get(2)
    assert (entry.state, entry.reason, entry.decision.promote) == (PolicyState.REJECTED, "CANARY_REFUSED", False)
    assert entry.decision.reasons == ("its answers fail",)
    assert {version_of(registry, user) for user in USERS[:50]} == {1}
    assert not await registry.conclude(trial, GOOD)  # too late: it is over
    await serve_by_hand(registry, tmp_path, 3)


async def serve_by_hand(registry, tmp_path, version: int) -> None:
    await registry.load(version, publish(tmp_path / "policies", version))
    await registry.promote(version, GateDecision(True, (), {"by_hand": 1.0}), f"promote {version}")
    assert registry.serving.version == version


async def test_a_rollback_ends_the_canary_and_leaves_what_serves(tmp_path):
    registry, _ = await with_canary(tmp_path)
    await registry.rollback("back", "users complain")
    assert (registry.serving.version, registry.trial) == (1, None)
    assert registry.get(2).decision.reasons == ("rolled back: users complain",)
    with pytest.raises(NotFound, match="no canary"):
        registry.resolve("canary")


async def test_a_person_may_end_it_by_promoting(tmp_path):
    registry, _ = await with_canary(tmp_path)
    await registry.promote(2, GateDecision(True, ("by me",), {"by_hand": 1.0}), "now")
    assert (registry.serving.version, registry.trial) == (2, None)


async def test_another_version_promoted_by_hand_over_it_is_a_recorded_no(tmp_path):
    registry, _ = await with_canary(tmp_path)
    await registry.promote(1, GateDecision(True, (), {"by_hand": 1.0}), "same")  # serves already: nothing
    assert registry.trial is not None
    registry._delivery.places = [2, 0]  # the base, wherever it came from
    await registry.promote(0, GateDecision(True, (), {"by_hand": 1.0}), "base")
    assert (registry.serving.version, registry.trial) == (0, None)
    assert registry.get(2).decision.promote is False
    assert "by hand while it was the canary" in registry.get(2).decision.reasons[0]


async def test_what_a_rollback_returns_to_is_never_the_canary(tmp_path):
    """A refused canary is rejected for good, and a rollback to it would fail."""
    registry, _ = await with_canary(tmp_path)
    await registry.conclude(registry.trial, GOOD)  # 2 serves, 1 is the previous version
    await registry.promote(1, YES, "back")
    assert (registry.serving.version, registry.trial) == (1, None)


async def test_a_canary_that_does_not_come_back_after_a_restart_is_a_recorded_no(tmp_path):
    await with_canary(tmp_path)
    shutil.rmtree(tmp_path / "policies" / "v000002")
    again, _ = await started(tmp_path, 0.2)
    assert (again.serving.version, again.trial) == (1, None)
    assert again.get(2).decision.promote is False


async def test_a_second_candidate_waits(tmp_path):
    registry, _ = await with_canary(tmp_path)
    with pytest.raises(WrongState) as refused:  # two engines, both taken
        await registry.load(3, publish(tmp_path / "policies", 3))
    assert refused.value.reason == "CANARY_UNDER_WAY"
    with pytest.raises(WrongState) as refused:
        await registry.promote(1, YES, "again") or await registry.promote(0, YES, "base")
    assert refused.value.reason == "CANARY_UNDER_WAY"
    with pytest.raises(WrongState) as refused:
        await registry.retire(2, None)
    assert refused.value.reason == "STILL_CANARY"


async def test_a_restart_goes_on_with_the_canary_and_its_counts(tmp_path):
    registry, _ = await with_canary(tmp_path)
    registry.trial.tally.canary.good = 7
    registry.trial.cursor = 41
    registry.save_trial()
    again, _ = await started(tmp_path, 0.2)
    assert (again.serving.version, again.trial.version) == (1, 2)
    assert (again.trial.tally.canary.good, again.trial.cursor) == (7, 41)
    assert states(again)[2] is PolicyState.CANARY


# What people say of it.


def group(version: int, name: str, author: str = "", digest: str = "d") -> Group:
    answer = Completion(name, "p", f"g-{name}", "x", (), (), (), FinishReason.STOP, version, digest, author=author)
    return Group(f"g-{name}", Prompt("p", (Message("user", "x"),)), (answer,))


def event(cursor: int = 1, **body) -> FeedbackEvent:
    return FeedbackEvent(cursor, f"e{cursor}", "run", 0.0, **body)


def test_thumbs_and_duels_speak_of_versions() -> None:
    votes = Votes()
    for version, name in ((1, "a"), (2, "b"), (2, "c")):
        votes.note(event(group=group(version, name)))
    votes.note(event(group=group(2, "mine", author="user:u")))
    votes.note(event(group=group(0, "sent-back", digest="")))  # a text whose policy nobody knows

    def thumb(name: str, value: float, labeler: str = "user:u"):
        return votes.thumb(event(reward=Reward(name, value, labeler)))

    def duel(first: str, second: str, p: float):
        return votes.duel(event(preference=Preference("g", first, second, p, 1.0)))

    assert thumb("b", 1.0) == Thumb("user:u", 2, True)
    assert thumb("a", 0.0) == Thumb("user:u", 1, False)
    assert [thumb("b", 1.0, "exact_match"), thumb("unknown", 1.0), thumb("sent-back", 1.0)] == [None] * 3
    assert (duel("a", "b", 0.2), duel("a", "b", 0.8)) == ((2, 1), (1, 2))
    assert (duel("a", "b", 0.5), duel("a", "mine", 0.0)) == (None, None)


class Labeling:
    """Feedback: each of the events once, then silence."""

    def __init__(self, events: list[FeedbackEvent]) -> None:
        self._events = events
        self.cursors: list[int] = []

    def stream(self, run_id: str, cursor: int, idle_seconds: float):
        self.cursors.append(cursor)
        yield from (e for e in self._events if e.cursor > cursor)
        time.sleep(0.02)


@pytest.mark.parametrize(("likes", "state"), [(True, PolicyState.SERVING), (False, PolicyState.REJECTED)])
async def test_live_feedback_decides_by_itself(tmp_path, monkeypatch, likes: bool, state: PolicyState) -> None:
    monkeypatch.setattr(canary, "PERIOD_SECONDS", 0.01)
    registry, _ = await with_canary(tmp_path)
    arms = registry.trial.tally
    arms.canary.answered = arms.serving.answered = 1000
    events = [event(1, group=group(1, "old")), event(2, group=group(2, "new"))]
    for n in range(300):
        events.append(event(3 + 2 * n, reward=Reward("new", float(likes), f"user:{n}")))
        events.append(event(4 + 2 * n, reward=Reward("old", float(n % 2), f"user:{n}")))
    labeling = Labeling(events)
    metrics = InferenceMetrics(CollectorRegistry())
    keeper = CanaryKeeper(registry, CanarySettings(share=0.2), metrics, lambda: labeling)
    work = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while registry.trial is not None:
            await asyncio.sleep(0.01)
    work.cancel()
    assert states(registry)[2] is state
    assert registry.get(2).decision.numbers["canary_serving_good"] > 0
    assert labeling.cursors[0] == -1
    verdict = "promote" if likes else "rollback"
    assert metrics.canary_verdicts.labels(verdict)._value.get() == 1


async def test_one_user_has_one_voice_a_side_and_duels_are_counted_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(canary, "PERIOD_SECONDS", 0.01)
    registry, _ = await with_canary(tmp_path)
    events = [event(1, group=group(1, "old")), event(2, group=group(2, "new")), event(3, group=group(2, "too"))]
    events += [event(4 + n, reward=Reward("new", 0.0, "user:angry")) for n in range(50)]
    events += [event(60, reward=Reward("old", 1.0, "user:angry"))]
    events += [event(61 + n, preference=Preference("g", "new", "old", float(n % 4 > 0), 1.0)) for n in range(8)]
    events += [event(70, preference=Preference("g", "new", "too", 1.0, 1.0))]  # both the canary's
    labeling = Labeling(events)
    keeper = CanaryKeeper(registry, CanarySettings(share=0.2), InferenceMetrics(CollectorRegistry()), lambda: labeling)
    work = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while registry.trial.cursor < 70:
            await asyncio.sleep(0.01)
    work.cancel()
    tally = registry.trial.tally
    assert (tally.canary.bad, tally.canary.good, tally.serving.good) == (1, 0, 1)
    assert (tally.duels_won, tally.duels_lost) == (6, 2)


async def test_without_the_labeling_service_a_canary_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(canary, "PERIOD_SECONDS", 0.01)
    registry, _ = await with_canary(tmp_path)

    def nobody():
        raise Unavailable("labeling is down", "start it")

    keeper = CanaryKeeper(registry, CanarySettings(share=0.2), InferenceMetrics(CollectorRegistry()), nobody)
    work = asyncio.create_task(keeper.run())
    await asyncio.sleep(0.1)
    assert not work.done()
    work.cancel()
    assert registry.trial is not None
    assert await serve_nothing(registry)


async def serve_nothing(registry) -> bool:
    """What serves goes on serving."""
    with registry.lease("", "somebody"):
        return True
