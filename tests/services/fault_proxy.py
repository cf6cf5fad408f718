"""A TCP proxy that misbehaves as networks do: late, cut, silent, closed, slow."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FAULTS = ("none", "delay", "reset", "silent", "closed", "slow")
SILENT_SECONDS = 2.0
"""How long a connection says nothing before it is reset, as a router does that has forgotten it."""
MORE_SECONDS = 60.0
"""How long `misbehave` goes on for faults that nobody met."""


class FaultProxy:
    """Forwards 127.0.0.1:`port` to `target`. `fault` may be changed at any time, by any thread."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.fault = "none"
        self.met: set[str] = set()
        """Faults that some connection really met."""
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def reset_all(self) -> None:
        """Every connection, now."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def _reset_all(self) -> None:
        for writer in tuple(self._writers):
            self.met.add("reset")
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "closed":
            self.met.add("closed")
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side is gone: so is the other
        finally:
            self._writers -= pair
            for each in pair:
                _reset(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16384):
            fault = self.fault
            self.met.add(fault)
            match fault:
                case "delay":
                    await asyncio.sleep(random.uniform(0.02, 0.2))
                case "reset":
                    raise ConnectionResetError
                case "silent":
                    await asyncio.sleep(SILENT_SECONDS)
                    raise ConnectionResetError
                case "slow":
                    for start in range(0, len(data), 512):
                        writer.write(data[start : start + 512])
                        await writer.drain()
                        await asyncio.sleep(0.02)
                    continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """With a reset rather than a polite end."""
    with contextlib.suppress(OSError, AttributeError):
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


@contextmanager
def fault_proxy(address: str) -> Iterator[FaultProxy]:
    host, _, port = address.rpartition(":")
    proxy = FaultProxy((host, int(port)))
    try:
        yield proxy
    finally:
        proxy.close()


def _all_met(proxies: list[FaultProxy]) -> bool:
    """Who waits between two attempts may never meet a port that refuses him."""
    return set().union(*(proxy.met for proxy in proxies)) >= set(FAULTS) - {"closed"}


def misbehave(proxies: list[FaultProxy], seconds: float, seed: int = 0) -> None:
    """One fault after the other, on one or several of them, until some connection has met each that it can; at the
    end none."""
    draw, until = random.Random(seed), time.monotonic() + seconds
    order = [fault for fault in FAULTS if fault != "none"]
    number = 0
    while time.monotonic() < until or (not _all_met(proxies) and time.monotonic() < until + MORE_SECONDS):
        for proxy in draw.sample(proxies, draw.randrange(1, len(proxies) + 1)):
            proxy.fault = order[number % len(order)]
            if proxy.fault in ("reset", "closed"):
                proxy.reset_all()
        # Long enough for somebody who came back meanwhile to meet it.
        time.sleep(
            draw.uniform(1.0, 2.0) if order[number % len(order)] in ("delay", "slow") else draw.uniform(0.2, 0.7)
        )
        number += 1
        for proxy in proxies:
            proxy.fault = "none"
        time.sleep(draw.uniform(0.3, 0.8))
    for proxy in proxies:
        proxy.fault = "none"
