"""The learner's own durable memory: runs, their rows, and which feedback events they consumed (invariant 3).

One transaction per iteration commits the row, the checkpoint's name, the cursor and the consumed event ids together:
either all of an iteration happened or none of it. The primary key on the event id is what makes training twice on an
event impossible rather than unlikely.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import apsw

from iterpo.errors import Conflict, IterpoError, NotFound, ResourceExhausted, Unavailable, WrongState
from iterpo.run_config import ReplayOf
from iterpo.types import Example, GateDecision, IterationRow, Message, Progress, Prompt, Seen

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, config TEXT NOT NULL, examples TEXT NOT NULL, heldout TEXT NOT NULL,
    state TEXT NOT NULL, status TEXT NOT NULL DEFAULT '', progress TEXT NOT NULL DEFAULT '{}', checkpoint TEXT);
CREATE TABLE IF NOT EXISTS rows (
    run_id TEXT NOT NULL, iteration INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run_id, iteration));
CREATE TABLE IF NOT EXISTS consumed (
    event_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL, run_id TEXT NOT NULL, iteration INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS consumed_by_run ON consumed (run_id, cursor);
CREATE TABLE IF NOT EXISTS seen (run_id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (request_id TEXT PRIMARY KEY, content TEXT NOT NULL);
"""


@dataclass(frozen=True)
class RunSummary:
    """A run without its data: what is asked for at every tick of every watcher."""

    run_id: str
    config: dict[str, Any]
    state: str
    status: str
    progress: Progress
    checkpoint: str | None

    @property
    def replay_of(self) -> ReplayOf | None:
        of = self.config.get("replay_of")
        return ReplayOf.model_validate(of) if of else None


@dataclass(frozen=True)
class RunRecord(RunSummary):
    examples: list[Example]
    heldout: list[Example]


class Ledger:
    """Safe to use from several threads; every write is durable when it returns.

    Every method raises ResourceExhausted (DISK_FULL), WrongState (LEDGER_CORRUPT) or Unavailable (LEDGER_FAILED) when
    the database cannot be used; then nothing of the call was written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            self._db = apsw.Connection(str(path))
            self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;")
            self._db.execute(SCHEMA)

    def repeated(self, request_id: str, content: str) -> bool:
        """Whether this very request was carried out before. Raises Conflict (REQUEST_ID_REUSED) when its id was used
        for another content."""
        with self._reading():
            row = self._db.execute("SELECT content FROM requests WHERE request_id = ?", (request_id,)).fetchone()
        if row is not None and row[0] != content:
            raise Conflict(
                f"Request id {request_id!r} was already used for another request.",
                "Use a fresh request_id for every new request, and repeat one only with the same content.",
                "REQUEST_ID_REUSED",
            )
        return row is not None

    def remember(self, request_id: str, content: str) -> None:
        """That a request was carried out; `content` is whatever tells it from another."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (request_id, content))

    def create(
        self,
        run_id: str,
        config: dict[str, Any],
        examples: Sequence[Example],
        heldout: Sequence[Example],
        request: tuple[str, str] | None = None,
    ) -> None:
        """The run has not started yet: it stands as stopped. `request` (id, content) is remembered with it. Raises
        Conflict when the run exists."""
        with self._writing():
            if self._db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
                raise Conflict(
                    f"Run {run_id!r} exists already.", f"Resume it (iterpo run resume {run_id}) or choose another name."
                )
            self._db.execute(
                "INSERT INTO runs (run_id, config, examples, heldout, state) VALUES (?, ?, ?, ?, 'STOPPED')",
                (run_id, json.dumps(config), _dump(examples), _dump(heldout)),
            )
            if request is not None:
                self._db.execute("INSERT INTO requests VALUES (?, ?)", request)

    def summary(self, run_id: str) -> RunSummary:
        """Raises NotFound. Does not read the prompts, of which there may be 100,000."""
        with self._reading():
            row = self._db.execute(
                "SELECT run_id, config, state, status, progress, checkpoint FROM runs WHERE run_id = ?", (run_id,)
            ).fetchone()
        if row is None:
            raise NotFound(f"There is no run {run_id!r}.", "See the runs with: iterpo run status", "RUN_NOT_FOUND")
        name, config, state, status, progress, checkpoint = row
        return RunSummary(name, json.loads(config), state, status, Progress(**json.loads(progress)), checkpoint)

    def get(self, run_id: str) -> RunRecord:
        """Raises NotFound."""
        with self._reading():
            summary = self.summary(run_id)
            query = "SELECT examples, heldout FROM runs WHERE run_id = ?"
            [(examples, heldout)] = self._db.execute(query, (run_id,)).fetchall()
            row = self._db.execute("SELECT body FROM seen WHERE run_id = ?", (run_id,)).fetchone()
        seen = {name: Seen(**numbers) for name, numbers in json.loads(str(row[0])).items()} if row else {}
        whole = vars(summary) | {"progress": replace(summary.progress, seen=seen)}
        return RunRecord(**whole, examples=_parse(str(examples)), heldout=_parse(str(heldout)))

    def run_ids(self) -> list[str]:
        with self._reading():
            return [row[0] for row in self._db.execute("SELECT run_id FROM runs ORDER BY rowid")]

    def set_state(self, run_id: str, state: str, status: str) -> None:
        with self._writing():
            self._db.execute("UPDATE runs SET state = ?, status = ? WHERE run_id = ?", (state, status, run_id))

    def begin(self, run_id: str, progress: Progress, checkpoint: str) -> None:
        """Where a new run starts from, and the checkpoint that holds it."""
        with self._writing():
            self._write_progress(run_id, progress)
            self._db.execute("UPDATE runs SET checkpoint = ? WHERE run_id = ?", (checkpoint, run_id))

    def set_progress(self, run_id: str, progress: Progress) -> None:
        with self._writing():
            self._write_progress(run_id, progress)

    def _write_progress(self, run_id: str, progress: Progress) -> None:
        """What an adaptive prompt sampler remembers lies apart: it may be large, and watchers never look at it."""
        body = asdict(replace(progress, seen={}))
        self._db.execute("UPDATE runs SET progress = ? WHERE run_id = ?", (json.dumps(body), run_id))
        if progress.seen:
            seen = json.dumps({name: asdict(numbers) for name, numbers in progress.seen.items()})
            self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (run_id, seen))

    def interrupt(self) -> list[str]:
        """Mark runs that were active when the last process ended; returns their names."""
        with self._writing():
            found = self._db.execute(
                "UPDATE runs SET state = 'INTERRUPTED', status = 'the learner ended in mid-run' "
                "WHERE state = 'RUNNING' RETURNING run_id"
            ).fetchall()
        return [str(run_id) for (run_id,) in found]

    def commit(
        self,
        row: IterationRow,
        progress: Progress,
        checkpoint: str,
        consumed: Iterable[tuple[int, str]],
    ) -> None:
        """One iteration, all of it or nothing. Raises apsw.ConstraintError if an event had been consumed before."""
        with self._writing():
            self._db.executemany(
                "INSERT INTO consumed (cursor, event_id, run_id, iteration) VALUES (?, ?, ?, ?)",
                [(cursor, event_id, row.run_id, row.iteration) for cursor, event_id in consumed],
            )
            self._db.execute(
                "INSERT INTO rows (run_id, iteration, body) VALUES (?, ?, ?)",
                (row.run_id, row.iteration, json.dumps(asdict(row))),
            )
            self._write_progress(row.run_id, progress)
            self._db.execute("UPDATE runs SET checkpoint = ? WHERE run_id = ?", (checkpoint, row.run_id))

    def rows(self, run_id: str, after: int = 0, most: int = 0, limit: int = -1) -> list[IterationRow]:
        """Of later iterations than `after`; `most` thins them evenly to about so many, the last one among them. At most
        `limit` of what is left, the earliest."""
        with self._reading():
            query = "SELECT coalesce(max(iteration), 0) FROM rows WHERE run_id = ?"
            last = int(str(self._db.execute(query, (run_id,)).fetchall()[0][0]))
            step = max(1, math.ceil((last - after) / most)) if most else 1
            query = "SELECT body FROM rows WHERE run_id = ? AND iteration > ? AND (? - iteration) % ? = 0"
            query += " ORDER BY iteration LIMIT ?"
            found = self._db.execute(query, (run_id, after, last, step, limit)).fetchall()
        return [_row(json.loads(str(body))) for (body,) in found]

    def consumed(self, run_id: str, after: int = 0) -> list[str]:
        """Ids of the events that the run consumed, beyond a cursor."""
        with self._reading():
            found = self._db.execute(
                "SELECT event_id FROM consumed WHERE run_id = ? AND cursor > ? ORDER BY cursor", (run_id, after)
            )
            return [row[0] for row in found]

    def iterations_of(self, run_id: str) -> dict[str, int]:
        """Event id -> the iteration that consumed it."""
        with self._reading():
            found = self._db.execute("SELECT event_id, iteration FROM consumed WHERE run_id = ?", (run_id,))
            return {str(event_id): int(iteration) for event_id, iteration in found}

    def touched(self, event_ids: Iterable[str]) -> list[tuple[str, int]]:
        """(run, iteration) of every iteration that consumed one of the events, in order."""
        with self._reading():
            found: set[tuple[str, int]] = set()
            for event_id in event_ids:
                query = "SELECT run_id, iteration FROM consumed WHERE event_id = ?"
                row = self._db.execute(query, (event_id,)).fetchone()
                if row is not None:
                    found.add((str(row[0]), int(row[1])))
        return sorted(found)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. Not the connection's own context manager: on a full disk SQLite has rolled back already."""
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._translated():
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.ConstraintError:
            raise  # not the disk's doing: something would have happened twice
        except apsw.Error as error:
            raise _ledger_error(error, self._path) from error


def _ledger_error(error: apsw.Error, path: Path) -> IterpoError:
    """What SQLite said, as an error that names the fix."""
    if isinstance(error, apsw.FullError):
        return ResourceExhausted(
            f"The disk of the runs' database {path} is full.", "Free space there, then resume the run.", "DISK_FULL"
        )
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return WrongState(
            f"The runs' database {path} is damaged: {error}.", "Stop the learner, restore a backup.", "LEDGER_CORRUPT"
        )
    return Unavailable(
        f"The runs' database {path} cannot be used: {type(error).__name__}: {error}.",
        "Look at its disk and its permissions, then resume the run.",
        "LEDGER_FAILED",
    )


def _dump(examples: Sequence[Example]) -> str:
    return json.dumps([asdict(e) for e in examples])


def _parse(text: str) -> list[Example]:
    found = []
    for raw in json.loads(text):
        prompt = raw.pop("prompt")
        messages = tuple(Message(**m) for m in prompt.pop("messages"))
        answers = tuple(raw.pop("answers"))
        found.append(Example(Prompt(messages=messages, **prompt), answers, **raw))
    return found


def _row(body: dict[str, Any]) -> IterationRow:
    decision = body.pop("decision")
    if decision:
        decision = GateDecision(decision["promote"], tuple(decision["reasons"]), decision["numbers"])
    return IterationRow(**body, decision=decision)
