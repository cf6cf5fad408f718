"""Power cuts at random moments while people label: `python label_power_cut.py FOLDER SEEDS SYNCHRONOUS`.

The file system underneath SQLite fails from a random write on. What was not synced by then is taken back, and a random
part of it put on the disk again, in order: a disk's cache may have written any of it. Then the store is opened anew and
asked for every label that was acknowledged; whatever was not acknowledged is sent again under its own request id.

Prints one JSON object: seeds, acknowledged labels, those lost, those there twice, and cuts that hit in mid-work.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from iterpo.errors import IterpoError
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.people import PeopleDesk, PeopleSettings, Receipt
from iterpo.store.database import open_database
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Mixture
from iterpo.types import Outcome
from tests.labeling.builders import group

LABELS = 24
WRITES = 1_000
"""About as many writes as labelling all of them takes: a cut at a random one of them hits anywhere."""
WAIT = 20


@dataclass
class Power:
    left: int
    """Writes until the cut."""
    on: bool = True

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.on = False
        if not self.on:
            raise apsw.IOError("the power is off")


POWER = Power(1 << 60)
FILES: list[CutFile] = []


class CutFile(apsw.VFSFile):
    def __init__(self, filename: Any, flags: list[int]) -> None:
        super().__init__("unix", filename, flags)
        self.path = Path(filename if isinstance(filename, str) else filename.filename())
        self.unsynced: list[tuple[int, bytes, bytes, int]] = []
        """(offset, what was written, what stood there, size before) since the last sync; b"" is a truncation."""
        FILES.append(self)

    def xWrite(self, data: bytes, offset: int) -> None:
        POWER.spend()
        self._remember(offset, data, len(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        POWER.spend()
        self._remember(newsize, b"", max(0, self.path.stat().st_size - newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        POWER.spend()
        super().xSync(flags)
        self.unsynced.clear()

    def _remember(self, offset: int, data: bytes, length: int) -> None:
        with self.path.open("rb") as file:
            file.seek(offset)
            self.unsynced.append((offset, bytes(data), file.read(length), self.path.stat().st_size))

    def cut(self, chance: random.Random) -> None:
        with self.path.open("r+b") as file:
            for offset, _, before, size in reversed(self.unsynced):
                file.seek(offset)
                file.write(before)
                file.truncate(size)
            for offset, data, _, _ in self.unsynced:
                if data and chance.random() < 0.5:
                    file.seek(offset)
                    file.write(data)


class CutFileSystem(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("cut", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """A temporary file (no name) holds nothing that outlives the process."""
        return apsw.VFSFile("unix", name, flags) if name is None else CutFile(name, flags)


def desk_of(path: Path) -> LabelingDesk:
    database = open_database(path)
    settings = PeopleSettings(mixture=Mixture(), lease_seconds=1e6)
    return LabelingDesk(database, {}, people=PeopleDesk(database, settings=settings))


def close(desk: LabelingDesk) -> None:
    with contextlib.suppress(apsw.Error, IterpoError):
        desk.close()
    with contextlib.suppress(apsw.Error, IterpoError):
        desk.database.close()


def label(desk: LabelingDesk, chance: random.Random) -> dict[str, Submission]:
    """Send labels with several under way until the power goes; returns all that were sent, acknowledged or not."""
    sent: dict[str, Submission] = {}
    under_way: list[tuple[str, Future[list[Receipt]]]] = []
    with contextlib.suppress(IterpoError):
        for number in range(LABELS):
            ((held,), _) = desk.people.lease(Ask("ann", 1, 1e6)).result(WAIT)
            outcome = Outcome.FIRST if chance.random() < 0.5 else Outcome.SECOND
            sent[f"label-{number}"] = Submission(held.lease_id, outcome)
            under_way.append(
                (f"label-{number}", desk.people.submit("ann", [(f"label-{number}", sent[f"label-{number}"])]))
            )
            if len(under_way) > 3:
                acknowledge(under_way.pop(0))
    for each in under_way:
        with contextlib.suppress(IterpoError):
            acknowledge(each)
    return sent


ACKNOWLEDGED: dict[str, str] = {}


def acknowledge(sent: tuple[str, Future[list[Receipt]]]) -> None:
    (receipt,) = sent[1].result(WAIT)
    if receipt.accepted:
        ACKNOWLEDGED[sent[0]] = receipt.event_id


def one(path: Path, seed: int, synchronous: str) -> tuple[int, int, int, bool]:
    """(acknowledged, lost, there twice, whether the cut came before the end)."""
    chance = random.Random(seed)
    FILES.clear()
    ACKNOWLEDGED.clear()
    POWER.left, POWER.on = 1 << 60, True
    desk = desk_of(path)
    desk.database._write_connection.pragma("synchronous", synchronous)
    groups = [group("a", "b", group_id=f"g{i}") for i in range(LABELS)]
    desk.record("run", "people", groups, "record").result(WAIT)
    POWER.left = chance.randrange(WRITES)
    sent = label(desk, chance)
    hit = not POWER.on
    POWER.on, POWER.left = False, -1  # whatever is still under way is cut off, too
    files = list(FILES)
    close(desk)
    for file in files:
        if file.path.exists():
            file.cut(chance)
    Path(f"{path}-shm").unlink(missing_ok=True)

    POWER.on, POWER.left = True, 1 << 60
    again = desk_of(path)
    assert again.database._write_connection.pragma("integrity_check") == "ok"
    times = Counter(e.event_id for e in again.database.events("", 0, 10_000).result(WAIT) if e.label)
    lost = {name for name, event_id in ACKNOWLEDGED.items() if times[event_id] != 1}
    for request_id, submission in sent.items():
        (receipt,) = again.people.submit("ann", [(request_id, submission)]).result(WAIT)
        if request_id in ACKNOWLEDGED and receipt.event_id != ACKNOWLEDGED[request_id]:
            lost.add(request_id)
    labels = [e.label for e in again.database.events("", 0, 10_000).result(WAIT) if e.label]
    twice = sum(n - 1 for n in Counter((e.task_id, e.annotator) for e in labels).values())
    close(again)
    return len(ACKNOWLEDGED), len(lost), twice, hit


def main(folder: Path, seeds: int, synchronous: str) -> None:
    _file_system = CutFileSystem()
    acknowledged = lost = twice = hits = 0
    for seed in range(seeds):
        home = folder / str(seed)
        home.mkdir()
        a, b, c, hit = one(home / "feedback.db", seed, synchronous)
        acknowledged, lost, twice, hits = acknowledged + a, lost + b, twice + c, hits + hit
        for path in home.iterdir():
            path.unlink()
    found = {"seeds": seeds, "acknowledged": acknowledged, "lost": lost, "twice": twice, "cut_in_mid_work": hits}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
