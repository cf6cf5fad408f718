"""Ports of servers that tests and demos start."""

from __future__ import annotations

import socket

import pytest

from iterpo.demo import free_ports as ports
from iterpo.demo.free_ports import RANGE, free_ports


def test_ports_differ_and_can_be_listened_on():
    found = free_ports(40)
    assert len(set(found)) == 40
    for port in found:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


@pytest.mark.skipif(not RANGE.exists(), reason="the system does not say which ports its connections get")
def test_no_outgoing_connection_is_given_such_a_port():
    first = int(RANGE.read_text().split()[0])
    assert max(free_ports(200)) < first


def test_a_port_that_is_taken_is_not_drawn(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "SPAN", 1)
        monkeypatch.setattr(ports, "_first_of_the_systems", lambda: port + 1)
        with pytest.raises(OSError, match="stop what listens there"):
            free_ports(1)
    assert free_ports(1) == [port], "once it is free again"
