"""Late, cut, silent, refused and slow connections, between annotators and labeling, between inference and labeling, and
between labeling and its database: all that was acknowledged is there once, none is lost, and work goes on when the
network does.

ITERPO_FAULT_SECONDS=120 makes it the long form.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.errors import Unavailable
from iterpo.store.check import check
from iterpo.store.whole import reading
from services.inference.openai.feedback import Feedback
from tests.conftest import Place
from tests.labeling.builders import group
from tests.services.fault_proxy import FAULTS, FaultProxy, fault_proxy, misbehave
from tests.services.labeling_process import labeling_process, write_config
from tests.services.test_labels_survive_kills import NO_MEASURING, Crowd
from tests.store.postgresql_server import PostgresqlServer

SECONDS = float(os.environ.get("ITERPO_FAULT_SECONDS", "8"))
TASKS = 6000
pytestmark = pytest.mark.timeout(240 + 3 * SECONDS)


def record(client: LabelingClient) -> None:
    for start in range(0, TASKS, 500):
        groups = [group("left", "right", group_id=f"g{i}") for i in range(start, start + 500)]
        client.record("run", "people", groups, f"r{start}")


def sound(labels: list[Any], crowds: list[Crowd], store: str, proxies: list[FaultProxy]) -> None:
    stored = [label.label_id for label in labels]
    acknowledged = [event for crowd in crowds for event in crowd.acknowledged]
    assert [error for crowd in crowds for error in crowd.errors] == []
    assert set(acknowledged) <= set(stored), "an acknowledged label is lost"
    assert len(acknowledged) == len(set(acknowledged)), "one was acknowledged as two"
    assert max(Counter(label.group_id for label in labels).values()) == 1, "over-collected"
    assert set(stored) == set(acknowledged), "every label sent was acknowledged in the end"
    assert len(labels) > 100
    assert set().union(*(proxy.met for proxy in proxies)) >= set(FAULTS) - {"closed"}, "the faults were met"
    with reading(store) as whole:
        assert [finding.law for finding in check(whole, time.time()) if finding.broken] == []


def test_between_annotators_and_the_labeling_service(tmp_path: Path, place: Place) -> None:
    store = str(place("feedback.db"))
    config, address = write_config(tmp_path, NO_MEASURING + f'store = "{store}"\n')
    with labeling_process(config, address, tmp_path / "log") as (_, client), fault_proxy(address) as proxy:
        record(client)
        crowd = Crowd(f"127.0.0.1:{proxy.port}")
        misbehave([proxy], SECONDS)
        settled = len(crowd.acknowledged)
        deadline = time.monotonic() + 60
        while len(crowd.acknowledged) < settled + 50 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(crowd.acknowledged) >= settled + 50, "work goes on when the network does"
        crowd.stop()
        labels = [e.label for e in client.stream("run", 0, 1.0) if e.label]
    sound(labels, [crowd], store, [proxy])


async def test_between_inference_and_labeling(tmp_path: Path, place: Place) -> None:
    """Feedback that comes through the OpenAI-compatible door: who got no answer sends it again, with its request id."""
    config, address = write_config(tmp_path, f'store = "{place("feedback.db")}"\n')
    with labeling_process(config, address, tmp_path / "log") as (_, client), fault_proxy(address) as proxy:
        with connect(f"127.0.0.1:{proxy.port}") as channel:
            door = Feedback(lambda: LabelingClient(channel))
            events: dict[str, list[str]] = {}
            """Request id -> what was acknowledged."""
            faults = asyncio.create_task(asyncio.to_thread(misbehave, [proxy], SECONDS))

            async def use(user: str) -> None:
                while not faults.done():
                    answer = group("A sunny day.", "A rainy day.", group_id=f"{user}-{len(events)}")
                    door.served.remember(answer)
                    request_id = f"{user}-{len(events)}"
                    said = {"user": user, "completion_id": answer.completions[0].completion_id, "thumb": "up"}
                    while request_id not in events:
                        try:
                            events[request_id] = (await door.take(said | {"request_id": request_id}))["event_ids"]
                        except Unavailable:
                            await asyncio.sleep(0.05)

            await asyncio.wait_for(asyncio.gather(*map(use, ("ann", "ben", "cem"))), SECONDS + 120)
            await faults
        stored = Counter(event.event_id for event in client.stream("feedback", 0, 1.0))
    acknowledged = [event for given in events.values() for event in given]
    assert len(events) > 20
    assert Counter(acknowledged) == stored, "one is lost, or there twice, or nobody was told of it"
    assert proxy.met >= set(FAULTS) - {"closed"}, "the faults were met"


def test_between_labeling_servers_and_their_database(tmp_path: Path, postgresql_server: PostgresqlServer) -> None:
    store = postgresql_server.new_database()
    database = store.partition("@")[2]
    with ExitStack() as ending:
        proxies, crowds, clients = [], [], []
        for number in range(2):
            proxy = ending.enter_context(fault_proxy(database.partition("/")[0]))
            (tmp_path / str(number)).mkdir()
            through = f"postgresql://iterpo@127.0.0.1:{proxy.port}/{database.partition('/')[2]}"
            config, address = write_config(tmp_path / str(number), NO_MEASURING + f'store = "{through}"\n')
            log = tmp_path / f"log{number}"
            _, client = ending.enter_context(labeling_process(config, address, log))
            proxies.append(proxy)
            clients.append((client, address))
        record(clients[0][0])
        for _, address in clients:
            crowds.append(Crowd(address, prefix=address))
        misbehave(proxies, SECONDS)
        settled = sum(len(crowd.acknowledged) for crowd in crowds)
        deadline = time.monotonic() + 90
        while sum(len(c.acknowledged) for c in crowds) < settled + 50 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sum(len(c.acknowledged) for c in crowds) >= settled + 50, "work goes on when the network does"
        for crowd in crowds:
            crowd.stop()
        with connect(clients[1][1]) as channel:
            labels = [e.label for e in LabelingClient(channel).stream("run", 0, 2.0) if e.label]
    sound(labels, crowds, store, proxies)
