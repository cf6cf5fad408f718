"""kill -9 while a version is loaded, merged or promoted: the service comes back on a proved version, never half of one.

One kill of each kind in the suite, in adapter delivery (two engines take twice as long to come back, and tests/e2e
kills them); ITERPO_KILL_ROUNDS=10 for more, at other moments, in both.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from iterpo.config import load
from iterpo.errors import IterpoError
from iterpo.supervisor import HealthCheck, service_command
from tests.engine.served import START_SECONDS, YES, Served, greedy, prompts, running_inference, write_config

ROUNDS = int(os.environ.get("ITERPO_KILL_ROUNDS", "1"))
pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 + 240 * ROUNDS)]


@pytest.fixture(scope="module", params=["adapter", "merged"] if ROUNDS > 1 else ["adapter"])
def served(request, base_model, learner, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("restarts")
    with running_inference(folder, base_model, learner, request.param, "auto") as service:
        yield service


def scores(served: Served, policy: str) -> list[list[float]]:
    return served.inference.score(
        [tuple(served.learner.tokenizer.encode("The sea is a wide and quiet place."))], policy
    )


def killed_in(served: Served, call, seconds: float) -> None:
    """Kill the service this long after the call has begun, whatever becomes of the call."""

    def attempt() -> None:
        with suppress(IterpoError):
            call()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    time.sleep(seconds)
    os.kill(served.services.pid("inference"), signal.SIGKILL)


def seconds_until_it_answers(served: Served) -> float:
    started = time.monotonic()
    while True:
        with suppress(IterpoError):
            served.inference.sample(prompts(1), 1, greedy(2))
            return time.monotonic() - started
        if time.monotonic() - started > START_SECONDS:
            raise TimeoutError("the service did not come back")
        time.sleep(0.2)


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("moment", ["load", "promotion"])
def test_a_killed_service_comes_back_on_what_served(served: Served, moment: str, number: int, record_property) -> None:
    draw = random.Random(f"{moment} {number}")
    before = served.serve(seed=60)
    expected = {before: scores(served, "serving")}
    began = time.monotonic()
    version, digest = served.publish(seed=61 + number)
    if moment == "load":
        killed_in(served, lambda: served.registry.load(version, digest), draw.uniform(0.02, 0.6))
    else:
        served.registry.load(version, digest)
        expected[version] = scores(served, str(version))
        killed_in(served, lambda: served.registry.promote(version, YES, f"promote {version}"), draw.uniform(0.0, 0.01))
    away = seconds_until_it_answers(served)
    record_property("away_seconds", away)
    print(f"{moment}, killed {time.monotonic() - began - away:.2f} s after it began: away for {away:.1f} s")
    assert served.serving in expected
    assert scores(served, "serving") == [pytest.approx(row, abs=0.02) for row in expected[served.serving]]
    served.registry.load(version, digest)  # and the version that was cut short can be had
    assert served.registry.promote(version, YES, f"promote {version}") >= 0
    assert served.serving == version


def test_kill_9_of_the_service_with_nobody_beside_it_leaves_no_engine(base_model, tmp_path) -> None:
    config = write_config(tmp_path, base_model, "adapter", "auto")
    serves = HealthCheck(load(config), "inference")
    with (tmp_path / "log").open("wb") as log:
        service = psutil.Popen(service_command("inference", config), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not serves() and time.monotonic() < deadline:
            time.sleep(0.2)
        beside = service.children(recursive=True)
        assert sum(process.memory_info().rss > 1 << 28 for process in beside) >= 2, "the engine and its worker"
    finally:
        service.kill()
        service.wait(10)
    _, left = psutil.wait_procs(beside, timeout=10)
    for process in left:
        process.kill()
    assert left == []
