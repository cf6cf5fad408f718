"""`iterpo annotate`: two answers, one key. Works with keys piped in as well, one character a label."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli.options import config_option, json_option, print_json, printable
from iterpo.types import Completion, Lease, Outcome

if TYPE_CHECKING:
    from iterpo.clients.labeling import LabelingClient, LabelResult

OUTCOMES = {"a": Outcome.FIRST, "b": Outcome.SECOND, "t": Outcome.TIE, "n": Outcome.BOTH_BAD, "s": Outcome.SKIP}
KEYS = (
    "a / b is better (A / B: much better; 1, 2 or 3 first: how much) · t tie · n both bad · s skip · "
    "r reason · u undo · x give back · g guideline · q quit"
)
ACTIONS = {"r": "rationale", "u": "undo", "x": "give back", "g": "guideline"}
MUCH_BETTER = 3
SIDE_BY_SIDE_WIDTH = 100
"""Characters: narrower terminals show one answer above the other."""
POLL_SECONDS = 1.0


@click.command()
@click.option("--annotator", default=None, help="Your name.  [default: the system's user name]")
@click.option("--run", "run_id", default="", help="Only tasks of this run.  [default: every run]")
@click.option("--guideline", default="", help="Only tasks with this guideline.  [default: every guideline]")
@click.option("--language", "languages", multiple=True, help="Only tasks in this language; may be repeated.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Stop after so many labels.")
@click.option(
    "--wait", type=click.FloatRange(0), default=0.0, help="Seconds to wait for new tasks when there are none."
)
@config_option
@json_option
def command(
    annotator: str | None,
    run_id: str,
    guideline: str,
    languages: tuple[str, ...],
    limit: int | None,
    wait: float,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Compare answers in the terminal: which one is better?

    One key a pair: a or b for the better answer (capital: much better; or 1, 2, 3 before it for how much), t for a tie,
    n when both are bad, s to skip, q to quit. What was answered is stored at once; u takes the last label back. r asks
    for the reason of the next label, x gives the task back with one, g shows the guideline. The same in the browser:
    the page at labeling.page_address. With --json, every label is one line on standard output, and what is to be read
    goes to standard error.
    """
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.config import load

    name = annotator or getpass.getuser()
    with connect_service(load(config_path), "labeling", "annotator", person=name) as channel:
        Session(LabelingClient(channel), name, Pool(run_id, guideline, languages), wait, as_json).run(limit)


@dataclass(frozen=True)
class Pool:
    """Which tasks the person wants."""

    run_id: str = ""
    guideline: str = ""
    languages: tuple[str, ...] = ()


class Session:
    """One person's sitting: leases tasks one by one, shows them, sends the labels."""

    def __init__(self, client: LabelingClient, annotator: str, pool: Pool, wait: float, as_json: bool) -> None:
        from rich.console import Console

        self._client = client
        self._annotator = annotator
        self._pool = pool
        self._wait_seconds = wait
        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False)
        self._last_label = ""
        """Event id of the label that can be taken back."""
        self._put_off: list[Lease] = []
        """Tasks that were on the screen when an earlier label was taken back."""
        self.done = 0

    def run(self, limit: int | None) -> None:
        """Until `limit` labels, no more tasks, q, or the end of piped keys."""
        lease, open_tasks, going_on = None, 0, True
        while going_on and (limit is None or self.done < limit):
            if lease is None:
                lease, open_tasks = self._next_task()
            if lease is None:
                break
            lease, going_on = self._work(lease, open_tasks)
        self._farewell(open_tasks)

    def _next_task(self) -> tuple[Lease | None, int]:
        if self._put_off:
            return self._put_off.pop(), 0
        deadline = time.monotonic() + self._wait_seconds
        while True:
            pool = self._pool
            leases, open_tasks = self._client.lease(
                self._annotator, 1, pool.run_id, pool.guideline, pool.languages, resume=True
            )
            if leases or time.monotonic() >= deadline:
                return (leases[0] if leases else None), open_tasks
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _work(self, lease: Lease, open_tasks: int) -> tuple[Lease | None, bool]:
        """Show a task until it is labelled or given back; (the task to go on with, if any, whether to go on)."""
        show(self._console, lease, f"{self.done} done, {open_tasks} open")
        started, rationale = time.monotonic(), ""
        while True:
            choice = choose(keys())
            match choice:
                case None:
                    return None, False
                case "rationale":
                    rationale = self._line("Why? ")
                case "guideline":
                    self._console.print(printable(self._client.guideline(lease) or "There is no guideline."))
                case "give back":
                    self._client.release(lease, self._line("Why is it given back? ") or "no reason given")
                    return None, True
                case "undo":
                    earlier = self._undo()
                    if earlier is not None:
                        self._put_off.append(lease)
                        return earlier, True
                case (Outcome() as outcome, int() as strength):
                    seconds = time.monotonic() - started
                    self._submit(lease, outcome, strength, rationale, seconds)
                    return None, True

    def _submit(self, lease: Lease, outcome: Outcome, strength: int, rationale: str, seconds: float) -> None:
        result = self._client.submit(lease, outcome, strength, rationale, duration_seconds=seconds)
        self.done += result.accepted
        if result.accepted:
            self._last_label = result.event_id
        self._report(lease, outcome, strength, result)

    def _undo(self) -> Lease | None:
        """The task of the last label again; None, said so, when there is none that can be taken back."""
        from iterpo.errors import IterpoError

        if not self._last_label:
            self._console.print("There is no label to take back.", style="yellow")
            return None
        try:
            lease = self._client.undo(self._annotator, self._last_label)
        except IterpoError as error:
            self._console.print(str(error), style="yellow")
            return None
        self._last_label = ""
        self.done -= 1
        return lease

    def _line(self, question: str) -> str:
        if sys.stdin.isatty():
            return str(click.prompt(question, default="", show_default=False, prompt_suffix="", err=self._as_json))
        return sys.stdin.readline().strip()

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


def choose(pressed: Iterator[str]) -> tuple[Outcome, int] | str | None:
    """(outcome as presented, strength 0 to 3), one of ACTIONS, or None for q and the end of input. Other keys are
    passed over."""
    strength = 0
    for key in pressed:
        if key in "123":
            strength = int(key)
        elif key in "qQ\x03\x04":
            return None
        elif key in "AB":
            return OUTCOMES[key.lower()], MUCH_BETTER
        elif key in ACTIONS:
            return ACTIONS[key]
        elif key in OUTCOMES:
            return OUTCOMES[key], strength if key in "ab" else 0
    return None


def _answer(completion: Completion) -> str:
    return printable(completion.text) + (" [cut off at the token limit]" if completion.truncated else "")
