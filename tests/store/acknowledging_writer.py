"""A process that is killed: appends numbered events for ever and prints each number once it is acknowledged."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from pathlib import Path

from iterpo.store.database import open_database
from iterpo.store.transaction import Answer, Transaction
from iterpo.types import Reward


def main(path: Path, first: int) -> None:
    database = open_database(path)
    waiting: list[tuple[int, Future[Answer]]] = []
    number = first
    while True:
        waiting.append((number, database.write(lambda tx, n=number: store(tx, n))))
        number += 1
        if len(waiting) == 20:
            for stored, future in waiting:
                future.result(20)
                print(stored, flush=True)
            waiting.clear()


def store(transaction: Transaction, number: int) -> Answer:
    event = Reward(f"c{number}", float(number), "rule")
    return transaction.once(f"r{number}", b"payload", lambda: [transaction.append("run", event)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
