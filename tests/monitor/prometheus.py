"""Debian's Prometheus and its tool."""

from __future__ import annotations

import shutil
import subprocess

import pytest

PROMTOOL = shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(PROMTOOL is None, reason="needs Debian's Prometheus: apt-get install prometheus")


def promtool(*arguments: str, text: str = "") -> str:
    """What it complains of; empty when it is content."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
