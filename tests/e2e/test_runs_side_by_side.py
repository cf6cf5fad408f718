"""Two runs learn at the same time on one base and one engine, each under its own name; what serves stays the base,
until one of them is promoted and its users decide."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import PolicyClient
from iterpo.demo.traffic import Traffic
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.types import GateDecision, SamplingSettings
from tests.e2e.services import RUN_SECONDS, Services, finished, running_services

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

VERDICT_SECONDS = 60
PROMPTS = [e.prompt for e in read(demo_file("prompts.jsonl"))]


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    settings = {"inference": 'delivery = "adapter"\nrun_slots = 2', "learner": "runs = 2\nthreads = 1"}
    canary = "[inference.canary]\nshare = 0.5\n"
    with running_services(tmp_path_factory.mktemp("beside") / "home", canary, **settings) as running:
        yield running


def post(services: Services, path: str, **body: object) -> dict:
    response = httpx.post(f"http://{services.settings.inference.http_address}/v1/{path}", json=body, timeout=60)
    response.raise_for_status()
    return response.json()


def policies(services: Services) -> PolicyClient:
    return PolicyClient(connect_service(services.settings, "inference"))


@pytest.fixture(scope="module")
def learned(services) -> Traffic:
    """The runs `a` and `b` are over; what a user met meanwhile, who asked for nothing particular."""
    with Traffic(services.inference, PROMPTS, max_tokens=4) as traffic:
        services.start("a", iterations=2, beside=True)
        services.start("b", iterations=2, beside=True, algorithm="online_dpo", response_sampling={}, kl={})
        for name in ("a", "b"):
            services.wait(name, finished, RUN_SECONDS)
    return traffic


def test_two_runs_learn_beside_what_serves_and_users_of_either_are_answered(services, learned):
    rows = {name: services.learner.get(name).rows for name in ("a", "b")}
    heads = policies(services).heads()
    assert heads == {name: part[-1].policy_version for name, part in rows.items()}
    assert len({*heads.values(), 0}) == 3
    assert services.serving() == 0
    assert (learned.failed, learned.errors) == (0, [])
    greedy = SamplingSettings(temperature=0.0, max_tokens=8)
    for name, version in heads.items():
        ((answer,),) = services.inference.sample(PROMPTS[:1], 1, greedy, f"run/{name}")
        assert answer.policy_version == version
    # They learned at the same time: neither had its last version before the other had its first.
    versions = {name: {row.policy_version for row in part} for name, part in rows.items()}
    assert min(versions["a"]) < max(versions["b"])
    assert min(versions["b"]) < max(versions["a"])


@pytest.mark.usefixtures("learned")
def test_users_who_like_a_canary_less_have_it_rolled_back(services):
    """Through the real door, labeling service and canary: thumbs of users on both sides, and nobody else's word."""
    canary = policies(services).heads()["a"]
    policies(services).promote(canary, GateDecision(True, (), {"heldout_gain": 0.1}), "canary")
    sides: Counter[int] = Counter()
    deadline = time.monotonic() + VERDICT_SECONDS
    for number in range(400):
        if time.monotonic() > deadline or decided(services, canary):
            break
        answer = post(
            services,
            "chat/completions",
            model="serving",
            user=f"u{number}",
            max_tokens=2,
            messages=[{"role": "user", "content": "Hello!"}],
        )
        sides[answer["policy_version"]] += 1
        thumb = "down" if answer["policy_version"] == canary else "up"
        name = answer["choices"][0]["completion_id"]
        post(services, "feedback", completion_id=name, thumb=thumb, user=f"u{number}")
    while not decided(services, canary) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = decided(services, canary)
    assert found is not None, f"no verdict after {dict(sides)}"
    assert not found.promote
    assert any("of its feedback is good" in reason for reason in found.reasons), found.reasons
    assert set(sides) == {0, canary}
    assert services.serving() == 0
    assert "a" not in policies(services).heads(), "what users refuse is nobody's any more"


def decided(services: Services, version: int) -> GateDecision | None:
    """The decision, once the canary is over."""
    found = next(policy for policy in policies(services).versions() if policy.version == version)
    return None if found.state == "canary" else found.decision
