"""`iterpo annotate`: two answers, one key. Works with keys piped in as well, one character a label."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli.options import config_option, json_option, print_json, printable
from iterpo.types import Completion, Lease, Outcome

if TYPE_CHECKING:
    from iterpo.clients.labeling import LabelingClient, LabelResult

OUTCOMES = {"a": Outcome.FIRST, "b": Outcome.SECOND, "t": Outcome.TIE, "n": Outcome.BOTH_BAD, "s": Outcome.SKIP}
KEYS = "a / b is better (A / B: much better; 1, 2 or 3 first: how much) · t tie · n both bad · s skip · q quit"
MUCH_BETTER = 3
SIDE_BY_SIDE_WIDTH = 100
"""Characters: narrower terminals show one answer above the other."""
POLL_SECONDS = 1.0


@click.command()
@click.option("--annotator", default=None, help="Your name.  [default: the system's user name]")
@click.option("--run", "run_id", default="", help="Only tasks of this run.  [default: every run]")
@click.option("--limit", type=click.IntRange(1), default=None, help="Stop after so many labels.")
@click.option(
    "--wait", type=click.FloatRange(0), default=0.0, help="Seconds to wait for new tasks when there are none."
)
@config_option
@json_option
def command(
    annotator: str | None, run_id: str, limit: int | None, wait: float, config_path: Path | None, as_json: bool
) -> None:
    """Compare answers in the terminal: which one is better?

    One key a pair: a or b for the better answer (capital: much better; or 1, 2, 3 before it for how much), t for a tie,
    n when both are bad, s to skip, q to quit. What was answered is stored at once. With --json, every label is one line
    on standard output, and what is to be read goes to standard error.
    """
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.config import load

    with connect_service(load(config_path), "labeling", "annotator") as channel:
        session = Session(LabelingClient(channel), annotator or getpass.getuser(), run_id, wait, as_json)
        session.run(limit)


class Session:
    """One person's sitting: leases tasks one by one, shows them, sends the labels."""

    def __init__(self, client: LabelingClient, annotator: str, run_id: str, wait: float, as_json: bool) -> None:
        from rich.console import Console

        self._client = client
        self._annotator = annotator
        self._run_id = run_id
        self._wait_seconds = wait
        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False)
        self.done = 0

    def run(self, limit: int | None) -> None:
        """Until `limit` labels, no more tasks, q, or the end of piped keys."""
        open_tasks = 0
        while limit is None or self.done < limit:
            lease, open_tasks = self._next_task()
            if lease is None or not self._label(lease, open_tasks):
                break
        self._farewell(open_tasks)

    def _next_task(self) -> tuple[Lease | None, int]:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            leases, open_tasks = self._client.lease(self._annotator, 1, self._run_id)
            if leases or time.monotonic() >= deadline:
                return (leases[0] if leases else None), open_tasks
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _label(self, lease: Lease, open_tasks: int) -> bool:
        """False when the person quits."""
        show(self._console, lease, f"{self.done} done, {open_tasks} open")
        started = time.monotonic()
        choice = choose(keys())
        if choice is None:
            return False
        outcome, strength = choice
        seconds = time.monotonic() - started
        result = self._client.submit(lease, outcome, strength=strength, duration_seconds=seconds)
        self.done += result.accepted
        self._report(lease, outcome, strength, result)
        return True

    def _report(self, lease: Lease, outcome: Outcome, strength: int, result: LabelResult) -> None:
        if self._as_json:
            print_json(
                {
                    "task_id": lease.task.task_id,
                    "presented_outcome": outcome.value,
                    "presented_swapped": lease.swapped,
                    "strength": strength,
                    "accepted": result.accepted,
                    "refused_reason": result.refused_reason,
                    "event_id": result.event_id,
                }
            )
        elif not result.accepted:
            self._console.print(f"Not counted ({result.refused_reason}): others were faster.", style="yellow")

    def _farewell(self, open_tasks: int) -> None:
        thanks = f"{self.done} label{'s' * (self.done != 1)} stored."
        waiting = f" {open_tasks} task{'s' * (open_tasks != 1)} still open, none for you now." if open_tasks else ""
        self._console.print(thanks + waiting)


def show(console: Any, lease: Lease, progress: str) -> None:
    """The prompt and both answers as plain text: neither control characters nor rich markup of a model take effect."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    task = lease.task
    left, right = (task.second, task.first) if lease.swapped else (task.first, task.second)
    console.rule(progress)
    if task.guideline:
        console.print(Text(printable(task.guideline), style="italic"))
    for message in task.prompt.messages:
        console.print(Text(f"{message.role}: {printable(message.content)}", style="bold"))
    panels = [
        Panel(Text(_answer(answer)), title=name, title_align="left") for name, answer in (("A", left), ("B", right))
    ]
    if console.width >= SIDE_BY_SIDE_WIDTH:
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(ratio=1)
        table.add_column(ratio=1)
        table.add_row(*panels)
        console.print(table)
    else:
        console.print(*panels, sep="\n")
    console.print(KEYS, style="dim")


def keys() -> Iterator[str]:
    """Key presses; of piped input its characters, until it ends."""
    while True:
        key = click.getchar() if sys.stdin.isatty() else sys.stdin.read(1)
        if not key:
            return
        yield key


def choose(pressed: Iterator[str]) -> tuple[Outcome, int] | None:
    """(outcome as presented, strength 0 to 3), or None for q and the end of input. Other keys are passed over."""
    strength = 0
    for key in pressed:
        if key in "123":
            strength = int(key)
        elif key in "qQ\x03\x04":
            return None
        elif key in "AB":
            return OUTCOMES[key.lower()], MUCH_BETTER
        elif key in OUTCOMES:
            return OUTCOMES[key], strength if key in "ab" else 0
    return None


def _answer(completion: Completion) -> str:
    return printable(completion.text) + (" [cut off at the token limit]" if completion.truncated else "")
