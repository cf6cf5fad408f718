"""Late, cut, silent, refused and slow connections between the learner and each of the two other services, while it
learns and somebody else is served: nothing is lost or used twice, and the run goes on when the network does.

ITERPO_FAULT_SECONDS=120 makes it the long form, in which runs go one thing after the other, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.demo.traffic import Traffic
from iterpo.embedded_model import prepare
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.supervisor import Supervisor, service_specs
from tests.e2e.services import ROOT, START_SECONDS, Services, assert_every_event_was_used_once, finished
from tests.services.fault_proxy import FAULTS, FaultProxy, fault_proxy, misbehave

SECONDS = float(os.environ.get("ITERPO_FAULT_SECONDS", "40"))
AHEAD = [0, 1] if "ITERPO_FAULT_SECONDS" in os.environ else [1]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900 + 3 * SECONDS)]
RULE = '[labelers.e]\nkind = "verifier"\nfunction = "tests.e2e.rules:share_of_e"\n'


@pytest.fixture(scope="module")
def between(tmp_path_factory) -> Iterator[tuple[Services, list[FaultProxy]]]:
    """The services, and what the learner reaches the two others through."""
    home = tmp_path_factory.mktemp("faults") / "home"
    config_path = write_settings(home, prepare(ROOT / ".iterpo" / "models"))
    config_path.write_text(config_path.read_text() + RULE)
    settings = load(config_path)
    with ExitStack() as ending:
        proxies, through = [], []
        for section in ("inference", "labeling"):
            proxy = ending.enter_context(fault_proxy(getattr(settings, section).address))
            proxies.append(proxy)
            through += ["--set", f"{section}.address=127.0.0.1:{proxy.port}"]
        specs = [
            replace(spec, command=(*spec.command, *through)) if spec.name == "learner" else spec
            for spec in service_specs(settings, config_path)
        ]
        supervisor = ending.enter_context(Supervisor(config_path, specs=specs))
        supervisor.wait_ready(START_SECONDS)
        yield Services(supervisor, settings), proxies


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_run_goes_on_when_the_network_does(between, ahead):
    services, proxies = between
    run_id = f"faults-{ahead}"
    for proxy in proxies:
        proxy.met.clear()
    prompts = [example.prompt for example in read(demo_file("prompts.jsonl"))]
    with Traffic(services.inference, prompts, max_tokens=4) as traffic:
        services.start(run_id, iterations=6, ahead=ahead)
        misbehave(proxies, SECONDS, seed=ahead)
        services.wait(run_id, finished, 300)
    rows = services.learner.get(run_id).rows
    assert [row.iteration for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row.proved for row in rows if row.HasField("decision"))
    assert services.serving() == max(row.policy_version for row in rows if row.promoted)
    assert_every_event_was_used_once(services, run_id, least=6 * (2 + 8))
    assert traffic.requests > 5
    assert (traffic.failed, traffic.errors) == (0, [])
    assert set().union(*(proxy.met for proxy in proxies)) >= set(FAULTS) - {"closed"}, "the faults were met"
