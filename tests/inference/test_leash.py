"""A service, a process of its own, and in that the engine's innermost one, which follows the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from services.inference.leash import SERVICE
from tests.platform.test_docs import ROOT

SERVING = """
import subprocess, sys, time
from services.inference import leash
if "held" in sys.argv:
    leash.hold()
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
time.sleep(120)
"""
BETWEEN = 'import subprocess, sys, time; subprocess.Popen([sys.executable, "-c", sys.argv[1]]); time.sleep(120)'
INNERMOST = """
import time
from services.inference import leash
leash.follow()
print("follows", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("held", [True, False])
def test_whoever_kills_the_service_alone_kills_its_engine(held: bool) -> None:
    """Not held: they stay, which is why there is a leash."""
    command = [sys.executable, "-c", SERVING, BETWEEN, INNERMOST, *["held"][: int(held)]]
    environment = {key: value for key, value in os.environ.items() if key != SERVICE} | {"PYTHONPATH": str(ROOT)}
    service = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert service.stdout is not None
    assert service.stdout.readline() == "follows\n"
    engine = psutil.Process(service.pid).children(recursive=True)
    assert len(engine) == 2
    service.send_signal(signal.SIGKILL)
    service.wait(10)
    _, left = psutil.wait_procs(engine, timeout=10 if held else 1)
    for process in left:
        process.kill()
    service.stdout.close()
    assert len(left) == (0 if held else 2)
