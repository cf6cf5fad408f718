"""Two runs learn at the same time on one base and one engine, each under its own name; what serves stays the base."""

from __future__ import annotations

import pytest

from iterpo.clients.channel import connect_service
from iterpo.clients.inference import PolicyClient
from iterpo.demo.traffic import Traffic
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.types import SamplingSettings
from tests.e2e.services import RUN_SECONDS, finished, running_services

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_two_runs_learn_beside_what_serves_and_users_of_either_are_answered(tmp_path):
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    settings = {"inference": 'delivery = "adapter"\nrun_slots = 2', "learner": "runs = 2\nthreads = 1"}
    with running_services(tmp_path / "home", **settings) as services:
        with Traffic(services.inference, prompts, max_tokens=4) as traffic:
            services.start("a", iterations=2, beside=True)
            services.start("b", iterations=2, beside=True, algorithm="online_dpo", response_sampling={})
            for name in ("a", "b"):
                services.wait(name, finished, RUN_SECONDS)
        rows = {name: services.learner.get(name).rows for name in ("a", "b")}
        heads = PolicyClient(connect_service(services.settings, "inference")).heads()
        assert heads == {name: part[-1].policy_version for name, part in rows.items()}
        assert len({*heads.values(), 0}) == 3
        assert services.serving() == 0
        assert (traffic.failed, traffic.errors) == (0, [])
        greedy = SamplingSettings(temperature=0.0, max_tokens=8)
        for name, version in heads.items():
            ((answer,),) = services.inference.sample(prompts[:1], 1, greedy, f"run/{name}")
            assert answer.policy_version == version
        # They learned at the same time: neither had its last version before the other had its first.
        versions = {name: {row.policy_version for row in part} for name, part in rows.items()}
        assert min(versions["a"]) < max(versions["b"])
        assert min(versions["b"]) < max(versions["a"])
