"""`kill -9` of the labeling service under load, round after round: every acknowledged label is there, once.

ITERPO_KILL_ROUNDS=50 makes it the long form; a few rounds are run with every test.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelResult
from iterpo.types import Outcome
from tests.labeling.builders import group
from tests.services.labeling_process import labeling_process, write_config

ROUNDS = int(os.environ.get("ITERPO_KILL_ROUNDS", "3"))
PEOPLE = 6
WAIT = 60
NO_MEASURING = "gold_share = 0.0\nrepeat_share = 0.0\n"


class Crowd:
    """People who label at full speed until they are told to stop; what was acknowledged is kept."""

    def __init__(self, address: str, prefix: str = "p") -> None:
        self.acknowledged: list[str] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(address, f"{prefix}{i}")) for i in range(PEOPLE)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT)

    def _work(self, address: str, name: str) -> None:
        chance = random.Random(name)
        try:
            with connect(address) as channel, Annotation(channel, name, credit=4, on_result=self._take) as annotation:
                while not self._stop.is_set():
                    if (lease := annotation.next(0.2)) is not None:
                        annotation.label(lease, Outcome.FIRST if chance.random() < 0.5 else Outcome.SECOND)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)

    def _take(self, request_id: str, result: LabelResult) -> None:
        if result.accepted:
            self.acknowledged.append(result.event_id)


def test_every_acknowledged_label_is_there_once_after_each_kill(tmp_path: Path) -> None:
    config, address = write_config(tmp_path, NO_MEASURING)
    chance = random.Random(0)
    crowd, recorded = None, 0
    for number in range(ROUNDS):
        with labeling_process(config, address, tmp_path / "log") as (process, client):
            groups = [group("left", "right", group_id=f"g{recorded + i}") for i in range(1500)]
            client.record("run", "people", groups[:750], f"r{number}a")
            client.record("run", "people", groups[750:], f"r{number}b")
            recorded += 1500
            crowd = crowd or Crowd(address)
            time.sleep(0.2 + chance.random())
            process.kill()
            process.wait(WAIT)
    assert crowd is not None
    with labeling_process(config, address, tmp_path / "log") as (_, client):
        crowd.stop()
        labels = [e.label for e in client.stream("run", 0, 1.0) if e.label]
    stored = [label.label_id for label in labels]
    assert crowd.errors == []
    assert set(crowd.acknowledged) <= set(stored), "an acknowledged label is lost"
    assert len(crowd.acknowledged) == len(set(crowd.acknowledged))
    assert len({(label.task_id, label.annotator) for label in labels}) == len(labels), "a label is there twice"
    assert set(stored) - set(crowd.acknowledged) == set(), "every label sent was acknowledged in the end"
    assert len(labels) > 20 * ROUNDS
