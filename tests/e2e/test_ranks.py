"""A run whose updates two processes share, and what becomes of it when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from iterpo.v1 import learner_pb2
from tests.e2e.services import RUN_SECONDS, Services, finished, running_services

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    with running_services(tmp_path_factory.mktemp("ranks") / "home", learner="ranks = 2") as running:
        yield running


def followers(services: Services) -> list[int]:
    children = psutil.Process(services.supervisor.pid("learner")).children(recursive=True)
    return [child.pid for child in children if "iterpo.learner.ranks" in child.cmdline()]


def test_a_run_of_two_ranks_that_loses_one_says_so_is_resumed_and_leaves_no_process_behind(services):
    services.start("shared", iterations=3, ahead=1)
    services.wait("shared", lambda run: run.iteration >= 1, RUN_SECONDS)
    (follower,) = followers(services)
    os.kill(follower, signal.SIGKILL)
    failed = services.wait("shared", lambda run: run.state == learner_pb2.RUN_STATE_FAILED, RUN_SECONDS)
    assert "Rank 1 of the learner has ended" in failed.status
    services.learner.resume("shared")
    services.wait("shared", finished, RUN_SECONDS)
    rows = services.learner.get("shared").rows
    assert [row.iteration for row in rows] == [1, 2, 3]
    assert all(row.proved for row in rows)
    assert followers(services) == []
