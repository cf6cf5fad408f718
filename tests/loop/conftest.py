"""Runs in the fake world, on its clock: waiting for a process takes milliseconds, waiting for feedback none at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iterpo import collect, deliver, iterate, patience, pipeline, rollouts, sampling
from tests.loop.run import Run


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_SECONDS", 0.002)
    monkeypatch.setattr(patience, "LAST_DELAY_SECONDS", 0.01)


@pytest.fixture
def make_run(tmp_path, monkeypatch) -> Callable[..., Run]:
    def make(**arguments) -> Run:
        run = Run(tmp_path, **arguments)
        for module in (iterate, collect, deliver, sampling, rollouts, pipeline):
            monkeypatch.setattr(module, "time", run.clock)
        return run

    return make
