"""A process whose power is cut: its file system forgets every write that was not synced, then it ends.

`kill -9` cannot show the difference between synchronous=FULL and NORMAL: the kernel keeps what was written. This file
system takes back what SQLite did not ask to be synced. Prints how many events were acknowledged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import apsw

from iterpo.store.database import open_database
from iterpo.types import Reward

UNDERNEATH = "unix"
"""SQLite's own file system on Linux and macOS."""
EVENTS = 200
FILES: list[LossyFile] = []


class LossyFile(apsw.VFSFile):
    def __init__(self, filename: Any, flags: list[int]) -> None:
        super().__init__(UNDERNEATH, filename, flags)
        self.path = filename if isinstance(filename, str) else filename.filename()
        self.unsynced: list[tuple[int, bytes, int]] = []
        """(offset, what stood there, size of the file) before each write since the last sync."""
        FILES.append(self)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._remember(offset, len(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._remember(newsize, max(0, Path(self.path).stat().st_size - newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self.unsynced.clear()

    def _remember(self, offset: int, length: int) -> None:
        with Path(self.path).open("rb") as file:
            file.seek(offset)
            self.unsynced.append((offset, file.read(length), Path(self.path).stat().st_size))

    def forget(self) -> None:
        with Path(self.path).open("r+b") as file:
            for offset, before, size in reversed(self.unsynced):
                file.seek(offset)
                file.write(before)
                file.truncate(size)


class LossyFileSystem(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("lossy", UNDERNEATH, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> LossyFile:
        return LossyFile(name, flags)


def main(path: Path, synchronous: str) -> None:
    _file_system = LossyFileSystem()
    database = open_database(path)
    database._write_connection.pragma("synchronous", synchronous)
    for number in range(EVENTS):
        database.write(lambda tx, n=number: tx.append("run", Reward(f"c{n}", float(n), "rule"))).result(20)
    for file in FILES:
        if Path(file.path).exists():
            file.forget()
    print(EVENTS, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
