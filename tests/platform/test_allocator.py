"""Processes that compute get tcmalloc where it is installed, unless somebody chose otherwise."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iterpo import allocator
from tests.platform.test_supervisor import STEADY, WAIT_SECONDS, spec, supervise

INSTALLED = ctypes.util.find_library("tcmalloc_minimal")
needs_tcmalloc = pytest.mark.skipif(INSTALLED is None, reason="needs tcmalloc: apt install libtcmalloc-minimal4")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    allocator.environment.cache_clear()
    yield
    allocator.environment.cache_clear()


@needs_tcmalloc
def test_a_supervised_service_allocates_with_it(tmp_path):
    with supervise(tmp_path, spec(tmp_path, "a", STEADY)) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        assert "libtcmalloc_minimal" in Path(f"/proc/{supervisor.pid('a')}/maps").read_text()


@pytest.mark.parametrize("chosen", ["", "libjemalloc.so.2"])
def test_what_somebody_preloads_stays(monkeypatch, chosen):
    monkeypatch.setenv("LD_PRELOAD", chosen)
    assert allocator.environment() == {}


def test_where_it_is_not_installed_nothing_changes(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert allocator.environment() == {}


@pytest.mark.parametrize("preloaded", [False, pytest.param(True, marks=needs_tcmalloc)])
def test_what_is_free_goes_back_to_the_system_with_either(preloaded):
    """200 MB in pieces of 64 KiB, with one of them kept, so that the heap's end cannot come back by itself."""
    program = """
from iterpo.allocator import give_back
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
pieces = [b"x" * 65_536 for _ in range(3000)]
kept = pieces[-1]
del pieces
before = resident()
give_back()
print(before - resident())
"""
    environment = os.environ | (allocator.environment() if preloaded else {})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert float(done.stdout) > 150, done.stderr
