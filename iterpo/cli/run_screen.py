"""`iterpo run watch` on a terminal: a run's essentials on one screen, drawn anew as rows come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from iterpo.cli.options import printable

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, SHOWN_ROWS = 48, 8
"""Characters of a curve; latest iterations in the table."""


def _metric(name: str) -> Callable[[Any], float]:
    return lambda row: row.metrics.get(name, math.nan)


def _length(row: Any) -> float:
    completions = row.metrics.get("completions", 0.0)
    return row.metrics["tokens"] / completions if completions else math.nan


SERIES: tuple[tuple[str, Callable[[Any], float]], ...] = (
    ("reward, train", lambda row: row.train_reward),
    ("reward, held-out", lambda row: row.heldout_reward if row.proved else math.nan),
    ("KL, nats a token", lambda row: row.kl_nats if row.proved else math.nan),
    ("length, tokens", _length),
    ("entropy, nats", _metric("entropy")),
    ("margin, nats", _metric("margin_mean")),
    ("clipped share", _metric("clip_fraction")),
    ("gradient's norm", _metric("grad_norm")),
    ("engine off learner", _metric("mismatch_outside")),
    ("age, versions", _metric("policy_age_mean")),
    ("waited for rollouts, s", _metric("wait_rollouts_seconds")),
    ("sampling waited, s", _metric("wait_backpressure_seconds")),
    ("seconds", lambda row: row.seconds),
)


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The values' course in `width` characters at most, the lowest as ▁ and the highest as █; a gap where a value is
    not a number. Of more values than that, every character is the last of its share."""
    if len(values) > width:
        values = [values[(place + 1) * len(values) // width - 1] for place in range(width)]
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[round((v - low) / span * steps) if span else 0] if math.isfinite(v) else " " for v in values)


def screen(run: Any, state: str, gain: str, rows: Sequence[Any], header: str, lines: Sequence[str]) -> Any:
    """A rich renderable. `gain`: of the held-out reward, in words. `header` and `lines`: the table of the latest
    iterations."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (f"{run.run_id}  ", "bold"),
        f"{run.algorithm}  ",
        (state, "red" if state in ("failed", "interrupted") else "yellow" if state == "waiting" else "green"),
        f"  iteration {run.iteration}/{run.iterations}  version {run.policy_version}  {gain}",
    )
    curves = Table.grid(padding=(0, 2))
    for name, value in SERIES:
        values = [value(row) for row in rows]
        known = [v for v in values if math.isfinite(v)]
        if known:
            curves.add_row(
                Text(name, style="dim"), Text(sparkline(values), style="cyan"), Text(f"{known[-1]:.4g}"),
                Text(f"{min(known):.3g} to {max(known):.3g}", style="dim"),
            )  # fmt: skip
    latest = [Text(line, no_wrap=True, overflow="crop") for line in (header, *lines[-SHOWN_ROWS:])] if lines else []
    ended = state in ("finished", "stopped", "failed", "interrupted")
    hint = Text("" if ended else "Ctrl-C leaves; the run goes on.", style="dim")
    return Group(head, Text(printable(run.status), style="dim"), Text(), curves, Text(), *latest, Text(), hint)
