"""A side of a comparison in a process of its own, asked over its pipes: one JSON line in, one out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

MARK = "answer: "
"""Before an answer: whatever else a library prints is passed over."""


class Child:
    """`python -m MODULE ARGUMENTS`, whose `serve_parent` answers."""

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )

    def ask(self, request: Any) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError(f"{self._module} has no pipes")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"{self._module} died: run it by hand and type {json.dumps(request)}")

    def shutdown(self) -> None:
        self._process.communicate(timeout=60)  # its input ends, and so does it


def serve_parent(answer: Callable[[Any], Any]) -> None:
    """Answer every line of the standard input, until it ends."""
    for line in sys.stdin:
        say(answer(json.loads(line)))


def say(answer: Any) -> None:
    print(f"{MARK}{json.dumps(answer)}", flush=True)
