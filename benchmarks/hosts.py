"""`TwoHosts`: two hosts of a network of their own on this machine, as network namespaces. Needs root and iproute2.

What runs in one reaches the other by its address alone, as on two machines; the disk is shared, loopback is each one's
own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iterpo.errors import InvalidConfig

SECONDS = 30


class TwoHosts:
    """A context; at its end the network is gone, whoever still ran in it."""

    addresses = ("10.77.0.1", "10.77.0.2")

    def __init__(self) -> None:
        self._names = tuple(f"iterpo{os.getpid()}{letter}" for letter in "ab")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Raises InvalidConfig where the system does not let us."""
        with ExitStack() as undo:
            undo.callback(self._remove)
            try:
                self._make()
            except FileNotFoundError as error:
                raise InvalidConfig("There is no `ip`.", "Install the package iproute2.") from error
            except subprocess.CalledProcessError as error:
                why = error.stderr.decode().strip()
                raise InvalidConfig(f"No hosts of their own: {why}.", "Run as root, with CAP_SYS_ADMIN.") from error
            undo.pop_all()
        return self

    def _make(self) -> None:
        first, second = self._names
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", "net0", "netns", first, "type", "veth", "peer", "net0", "netns", second)
        for name, address in zip(self._names, self.addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "net0")
            for link in ("lo", "net0"):
                _ip("-n", name, "link", "set", link, "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(SECONDS)
        self._remove()

    def command(self, host: int, command: Sequence[str | Path]) -> list[str | Path]:
        """`command` as it runs on `host`, 0 or 1."""
        return ["ip", "netns", "exec", self._names[host], *command]

    def start(self, host: int, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Ended when the network is."""
        process: subprocess.Popen[bytes] = subprocess.Popen(self.command(host, command), **options)
        self._processes.append(process)
        return process

    def _remove(self) -> None:
        for name in self._names:
            with suppress(FileNotFoundError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=SECONDS, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=SECONDS)
