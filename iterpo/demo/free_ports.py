"""Loopback ports for a demo, a test or a benchmark that starts servers of its own."""

from __future__ import annotations

import itertools
import random
import socket
from pathlib import Path

SPAN = 12_000
"""How many ports below the system's own range are drawn from."""
USUAL_FIRST = 32_768
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Different ports that are free now, and likely still are when a server starts.

    Drawn below those that the system hands to outgoing connections: any of them can be taken by a client before the
    server is up. Raises OSError when no `count` of them are free.
    """
    end = _first_of_the_systems()
    drawn = random.SystemRandom().sample(range(end - SPAN, end), SPAN)
    ports = list(itertools.islice(filter(_is_free, drawn), count))
    if len(ports) < count:
        raise OSError(f"fewer than {count} ports of {end - SPAN} to {end} are free: stop what listens there")
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _first_of_the_systems() -> int:
    """The first port of outgoing connections; Linux's usual one where it cannot be read, or leaves no room below."""
    try:
        first = int(RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return USUAL_FIRST
    return first if first > SPAN + 1024 else USUAL_FIRST
