"""Learner and inference with a data_dir each, as on two machines, and between them only gRPC and a shared folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from iterpo.config import load
from iterpo.demo.demo import write_settings
from iterpo.embedded_model import prepare
from iterpo.policies import manifest
from iterpo.supervisor import Supervisor, service_specs
from tests.e2e.services import ROOT, RUN_SECONDS, START_SECONDS, Services, finished

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
RULE = '[labelers.e]\nkind = "verifier"\nfunction = "tests.e2e.rules:share_of_e"\n'


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("two")
    config_path = write_settings(home / "one", prepare(ROOT / ".iterpo" / "models"))
    shared = f'shared_policies = "{home / "shared"}"\n'
    text = config_path.read_text().replace("[inference]\n", "[inference]\nfetched_mib = 1\n")
    config_path.write_text(shared + text + RULE)
    settings = load(config_path)
    other = ("--set", f"data_dir={home / 'two'}")
    specs = [
        replace(spec, command=(*spec.command, *other)) if spec.name == "learner" else spec
        for spec in service_specs(settings, config_path)
    ]
    with Supervisor(config_path, specs=specs) as supervisor:
        supervisor.wait_ready(START_SECONDS)
        yield Services(supervisor, settings)


def test_policies_travel_through_the_shared_folder_and_fetched_ones_are_let_go(services):
    services.start("far", iterations=4)
    services.wait("far", finished, RUN_SECONDS)
    rows = services.learner.get("far").rows
    assert [row.promoted for row in rows] == [True] * 4
    last = rows[-1].policy_version
    assert services.serving() == last
    one = services.settings.data_dir / "policies"
    two = one.parents[1] / "two" / "policies"
    shared = one.parents[1] / "shared"
    assert {path.name for path in two.glob("v*")} == {f"v{row.policy_version:06d}" for row in rows}
    assert len(list(shared.iterdir())) == 4
    # Far above the bound of one MiB. As the last was loaded, the one before served, and a rollback needed one more.
    assert {path.name for path in one.glob("v*")} == {f"v{last - back:06d}" for back in (0, 1, 2)}
    assert (manifest.directory(one, last) / "fetched").exists()


def test_a_killed_inference_service_comes_back_with_what_was_fetched(services):
    before = services.serving()
    services.kill("inference")
    time.sleep(1)
    services.supervisor.wait_ready(START_SECONDS)
    assert services.serving() == before
