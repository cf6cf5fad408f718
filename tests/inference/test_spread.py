"""A draw shared out over replicas: the same answers as from one, whoever comes and goes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from iterpo.clients.spread import AWAY_SECONDS, SpreadGenerator
from iterpo.errors import Unavailable, WrongState
from iterpo.types import Completion, FinishReason, Message, Prompt, SamplingSettings
from iterpo.v1 import policy_pb2
from services.inference.answering import sample_seed

PROMPTS = [Prompt(f"p{i}", (Message("user", f"question {i}"),)) for i in range(17)]
SEEDED = SamplingSettings(seed=5)


class Service:
    """Answers with the seed that the real one would draw with."""

    def __init__(self, slow: float = 0.0, fails_after: int = 1_000) -> None:
        self.slow, self.left = slow, fails_after
        self.asked: list[tuple[int, int, str]] = []
        self.most, self._now = 0, 0
        self._lock = threading.Lock()

    def sample(self, prompts: Any, n: int, settings: SamplingSettings, policy: str = "serving", first: int = 0) -> Any:
        with self._lock:
            self.left -= 1
            if self.left < 0:
                raise Unavailable("gone", "Wait.")
            self.asked.append((first, len(prompts), policy))
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self.slow * len(prompts))
        with self._lock:
            self._now -= 1
        return [[answer(p, sample_seed(5, first + place, i)) for i in range(n)] for place, p in enumerate(prompts)]


def answer(prompt: Prompt, seed: int) -> Completion:
    return Completion(f"c{seed}", prompt.prompt_id, "g", f"seed {seed}", (), (), (), FinishReason.STOP, 3, "d")


class Policies:
    def __init__(self, *replicas: policy_pb2.Replica, serving: int = 3) -> None:
        self.replicas, self.serving = list(replicas), serving

    def listed(self, newest: int, below: int = 0) -> policy_pb2.ListPoliciesResponse:
        return policy_pb2.ListPoliciesResponse(
            serving_version=self.serving, replicas=self.replicas, run_heads={"mine": 2}
        )


def replica(address: str, *proved: int, connected: bool = True) -> policy_pb2.Replica:
    return policy_pb2.Replica(
        name=address, address=address, connected=connected, serving_version=3, proved=dict.fromkeys(proved, "d")
    )


def spread(primary: Service, policies: Policies, **services: Service) -> SpreadGenerator:
    return SpreadGenerator(primary, policies, services.__getitem__)  # type: ignore[arg-type]


def alone() -> Any:
    return Service().sample(PROMPTS, 4, SEEDED)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_however_many_share_a_draw_it_is_the_same_draw(count: int) -> None:
    services = {f"r{i}": Service(0.01) for i in range(count)}
    policies = Policies(*(replica(name, 3) for name in services))
    primary = Service(0.01)
    assert spread(primary, policies, **services).sample(PROMPTS, 4, SEEDED) == alone()
    asked = sorted(part for service in (primary, *services.values()) for part in service.asked)
    covered = [place for first, length, _ in asked for place in range(first, first + length)]
    assert covered == list(range(17)), "every prompt once"
    assert all(service.asked for service in services.values())


def test_a_faster_service_draws_more() -> None:
    fast, slow = Service(0.001), Service(0.02)
    spread(slow, Policies(replica("fast", 3)), fast=fast).sample(PROMPTS * 4, 16, SEEDED)
    drawn = Counter({"fast": sum(n for _, n, _ in fast.asked), "slow": sum(n for _, n, _ in slow.asked)})
    assert drawn["fast"] > drawn["slow"]


def test_no_service_draws_more_at_once_than_its_engine_holds_nor_more_than_its_share() -> None:
    one, other = Service(0.005), Service(0.005)
    spread(one, Policies(replica("other", 3)), other=other).sample(PROMPTS * 8, 16, SEEDED)
    assert (one.most, other.most) == (4, 4)  # 64 completions
    one, other = Service(0.05), Service(0.05)
    spread(one, Policies(replica("other", 3)), other=other).sample(PROMPTS[:8], 1, SEEDED)
    assert (len(one.asked), len(other.asked)) == (4, 4)


def test_what_a_replica_that_dies_had_in_hand_is_drawn_by_the_others_and_it_is_left_alone_for_a_while() -> None:
    primary, dying, steady = Service(0.001), Service(fails_after=1), Service(0.001)
    policies = Policies(replica("dying", 3), replica("steady", 3))
    generator = spread(primary, policies, dying=dying, steady=steady)
    assert generator.sample(PROMPTS, 4, SEEDED) == alone()
    dying.left, before = 1_000, len(dying.asked)
    assert generator.sample(PROMPTS, 4, SEEDED) == alone()
    assert len(dying.asked) == before
    generator._away = {name: at - AWAY_SECONDS for name, at in generator._away.items()}
    assert generator.sample(PROMPTS, 4, SEEDED) == alone()
    assert len(dying.asked) > before, "it is asked again"


def test_replicas_may_go_on_without_the_primary_and_nobody_at_all_is_said() -> None:
    gone = Service(fails_after=0)
    steady = Service(0.001)
    assert spread(gone, Policies(replica("steady", 3)), steady=steady).sample(PROMPTS, 4, SEEDED) == alone()
    with pytest.raises(Unavailable):
        spread(gone, Policies(replica("gone", 3)), gone=gone).sample(PROMPTS, 4, SEEDED)


@pytest.mark.parametrize(
    "unfit",
    [replica("other", 2), replica("other", 3, connected=False), replica("", 3)],
    ids=["has not proved it", "is away", "did not say where it is"],
)
def test_a_replica_that_cannot_answer_with_this_very_version_takes_no_part(unfit: policy_pb2.Replica) -> None:
    primary, other = Service(), Service()
    assert spread(primary, Policies(unfit), other=other).sample(PROMPTS, 4, SEEDED) == alone()
    assert (len(primary.asked), other.asked) == (1, [])


@pytest.mark.parametrize(("policy", "version"), [("serving", "3"), ("run/mine", "2"), ("7", "7"), ("base", "0")])
def test_a_draw_is_of_one_version_named_by_its_number(policy: str, version: str) -> None:
    primary, other = Service(), Service()
    spread(primary, Policies(replica("other", 0, 2, 3, 7)), other=other).sample(PROMPTS, 1, SEEDED, policy)
    assert {asked for _, _, asked in primary.asked + other.asked} == {version}


@pytest.mark.parametrize("policy", ["candidate", "previous", "run/nobody"])
def test_what_only_the_primary_can_resolve_is_left_to_it(policy: str) -> None:
    primary, other = Service(), Service()
    spread(primary, Policies(replica("other", 0, 3)), other=other).sample(PROMPTS, 1, SEEDED, policy)
    assert ([p for _, _, p in primary.asked], other.asked) == ([policy], [])


def test_a_refusal_of_the_primary_is_raised_as_it_is() -> None:
    class Refuses(Service):
        def sample(self, *_: Any, **__: Any) -> Any:
            raise WrongState("not loaded", "", "POLICY_NOT_LOADED")

    with pytest.raises(WrongState):
        spread(Refuses(), Policies()).sample(PROMPTS, 1, SEEDED)
