"""`python -m benchmarks.replicas` (`make bench-replicas`): labels a second of several labeling servers on one database.

The streams of benchmarks.labels, shared out over one, two and four labeling processes on one PostgreSQL, which runs on
the same two cores; beside them one process on SQLite. After each the store is checked: never more labels than a task
requires, nobody twice on one, counts right. Needs PostgreSQL's programs (Debian: postgresql).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.labels import RESULTS, labeling, measure_streams, record
from benchmarks.machine import hardware_key, versions
from iterpo.store.check import check
from iterpo.store.database import open_database
from iterpo.store.whole import reading
from tests.store.postgresql_server import PostgresqlServer, postgresql

SERVERS = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--credit", type=int, default=16, help="tasks that each annotator holds at the same time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    asked = (arguments.labels, arguments.streams, arguments.credit)
    result: dict[str, Any] = {"machine": hardware_key(), "date": time.strftime("%Y-%m-%d"), "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's account must get through
        result["sqlite"] = measure(Path(folder), "", 1, *asked)
        print("sqlite", result["sqlite"], flush=True)
        with postgresql(Path(folder) / "server") as server:
            for count in SERVERS:
                result[f"postgresql_{count}"] = measure(Path(folder), server, count, *asked)
                print(f"postgresql, {count}", result[f"postgresql_{count}"], flush=True)
    path = arguments.out / f"replicas-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def measure(
    folder: Path, server: PostgresqlServer | str, count: int, labels: int, streams: int, credit: int
) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(dir=folder))
    store = server.new_database() if isinstance(server, PostgresqlServer) else str(home / "feedback.db")
    with several(home, store, count) as addresses:
        record(addresses[0], labels + streams * credit, "stream")
        found = asyncio.run(measure_streams(addresses, streams, credit, labels))
    with reading(store) as whole:
        broken = [finding.law for finding in check(whole, time.time()) if finding.broken]
    database = open_database(store)
    events = database.events("stream", 0, 10 * labels).result(600)
    database.close()
    twice = Counter((e.label.task_id, e.label.annotator) for e in events if e.label is not None)
    return found | {"servers": count, "laws_broken": broken, "labelled_twice": sum(n - 1 for n in twice.values())}


@contextmanager
def several(home: Path, store: str, count: int) -> Iterator[list[str]]:
    with ExitStack() as ending:
        addresses = []
        for number in range(count):
            folder = home / str(number)
            folder.mkdir()
            address, _ = ending.enter_context(labeling(folder, store))
            addresses.append(address)
        yield addresses


if __name__ == "__main__":
    main()
