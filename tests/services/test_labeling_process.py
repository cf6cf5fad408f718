"""The labeling process dies at the wrong moment and comes back: nothing acknowledged is lost, the work goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from iterpo.errors import Unavailable
from iterpo.types import Outcome
from tests.labeling.builders import group
from tests.services.labeling_process import ROOT, labeling_process, write_config

SLOW = """
[labelers.slow]
kind = "verifier"
function = "tests.labeling.my_rules:slowly"
"""


@pytest.mark.e2e
def test_a_killed_server_goes_on_with_what_it_had_acknowledged(tmp_path: Path) -> None:
    config, address = write_config(tmp_path, SLOW)
    log = tmp_path / "log"
    groups = [group(*"abcd", group_id=f"g{i}") for i in range(10)]
    with labeling_process(config, address, log) as (process, client):
        acknowledged = client.record("run", "slow", groups, "r1")
        client.record("run", "people", [group("x", "y", group_id="pair")], "r2")
        (lease,), _ = client.lease("ann")
        label = client.submit(lease, Outcome.TIE, request_id="l1")
        # In the middle of labelling: some rewards are there, most are not.
        some = [next(client.stream("run", cursor, 10.0)) for cursor in (14, 15)]
        assert all(event.reward for event in some)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL

    with labeling_process(config, address, log) as (_, client):
        events = list(client.stream("run", 0, 3.0))
        assert client.record("run", "slow", groups, "r1") == acknowledged, "a repeated request is answered, not redone"
        assert client.submit(lease, Outcome.TIE, request_id="l1").duplicate

    ids = [event.event_id for event in events]
    rewarded = Counter(event.reward.completion_id for event in events if event.reward)
    assert set(acknowledged) | {label.event_id} <= set(ids)
    assert [event.event_id for event in some] == ids[14:16], "events keep their places"
    assert sorted(rewarded) == sorted(c.completion_id for g in groups for c in g.completions)
    assert set(rewarded.values()) == {1}
    assert [event.cursor for event in events] == list(range(1, len(events) + 1))


@pytest.mark.e2e
def test_sigterm_ends_the_process_with_zero_even_while_a_labeler_hangs(tmp_path: Path) -> None:
    config, address = write_config(tmp_path, SLOW.replace("slowly", "never"))
    with labeling_process(config, address, tmp_path / "log") as (process, client):
        client.record("run", "slow", [group("a", "b")], "r1")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()
        assert time.monotonic() - started < 15


def test_a_wrong_configuration_ends_the_process_with_two_and_the_fix(tmp_path: Path) -> None:
    config, _ = write_config(tmp_path, '[labelers.mine]\nkind = "verifier"\nverifier = "nope"\n')
    ended = subprocess.run(
        [sys.executable, "-m", "services.labeling", "--config", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "Use one of ends_properly, exact_number" in ended.stderr


@pytest.mark.e2e
def test_a_stream_to_a_server_that_was_killed_ends_and_its_reader_hears_of_it(tmp_path: Path) -> None:
    """With gRPC's retries a stream that met the death of its connection never ended: see iterpo.clients.channel."""
    config, address = write_config(tmp_path)
    with labeling_process(config, address, tmp_path / "log") as (process, client):
        list(client.stream("", 0, 0.1))
        heard: list[float] = []

        def read() -> None:
            started = time.monotonic()
            with pytest.raises(Unavailable):
                list(client.stream("", 0, 0.1))
            heard.append(time.monotonic() - started)

        process.send_signal(signal.SIGKILL)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(15)
        assert heard, "it waits for an answer that will never come"
