"""Processes that compute get tcmalloc and Intel's OpenMP where they are installed, unless somebody chose otherwise."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iterpo import preload
from tests.platform.test_supervisor import STEADY, WAIT_SECONDS, spec, supervise

INSTALLED = ctypes.util.find_library("tcmalloc_minimal")
needs_tcmalloc = pytest.mark.skipif(INSTALLED is None, reason="needs tcmalloc: apt install libtcmalloc-minimal4")
needs_openmp = pytest.mark.skipif(preload._openmp() is None, reason="needs Intel's OpenMP: pip install intel-openmp")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    preload.environment.cache_clear()
    yield
    preload.environment.cache_clear()


@needs_tcmalloc
@needs_openmp
def test_a_supervised_service_has_both(tmp_path):
    with supervise(tmp_path, spec(tmp_path, "a", STEADY)) as supervisor:
        supervisor.wait_ready(WAIT_SECONDS)
        loaded = Path(f"/proc/{supervisor.pid('a')}/maps").read_text()
    assert "libtcmalloc_minimal" in loaded
    assert "libiomp5" in loaded


@needs_openmp
@pytest.mark.parametrize("without", ["", "openmp"])
def test_torch_computes_with_intels_openmp_where_it_is_preloaded(without):
    """torch brings GNU's along, and calls whichever was there first. Intel's tells its settings once it is used."""
    program = "import torch; torch.set_num_threads(2); torch.ones(1_000_000).exp()"
    environment = os.environ | preload.environment(without) | {"KMP_BLOCKTIME": "7", "KMP_SETTINGS": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    told = done.stdout + done.stderr
    assert ("KMP_BLOCKTIME=7" in told) == (not without), told


@pytest.mark.parametrize("chosen", ["", "libjemalloc.so.2"])
def test_what_somebody_preloads_stays(monkeypatch, chosen):
    monkeypatch.setenv("LD_PRELOAD", chosen)
    assert preload.environment() == {}


def test_where_nothing_is_installed_nothing_changes(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(preload, "OPENMP", ("no-such-package", "libiomp5.so"))
    assert preload.environment() == {}


def test_a_path_that_the_loader_would_cut_is_left_out(tmp_path, monkeypatch):
    """Its list is parted by spaces and colons."""
    library = tmp_path / "a folder" / "libiomp5.so"
    library.parent.mkdir()
    library.touch()

    class Listed:
        name = "libiomp5.so"

        def locate(self) -> Path:
            return library

    monkeypatch.setattr(preload.metadata, "files", lambda package: [Listed()])
    assert preload._openmp() is None
    library.parent.rename(tmp_path / "folder")
    library = tmp_path / "folder" / "libiomp5.so"
    assert preload._openmp() == str(library)


@pytest.mark.parametrize("preloaded", [False, pytest.param(True, marks=needs_tcmalloc)])
def test_what_is_free_goes_back_to_the_system_with_either(preloaded):
    """200 MB in pieces of 64 KiB, with one of them kept, so that the heap's end cannot come back by itself."""
    program = """
from iterpo.preload import give_back
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
pieces = [b"x" * 65_536 for _ in range(3000)]
kept = pieces[-1]
del pieces
before = resident()
give_back()
print(before - resident())
"""
    environment = os.environ | (preload.environment() if preloaded else {})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert float(done.stdout) > 150, done.stderr
