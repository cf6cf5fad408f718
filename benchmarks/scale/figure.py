"""The simulation's answers as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.scale.plan import Outcome
from benchmarks.scale.questions import Step

COLOURS = {"replicas": "#0072b2", "labelers": "#e69f00", "ranks": "#009e73", "": "#999999"}
"""Okabe and Ito's: told apart by every eye."""


def draw(path: Sequence[Step], around: Mapping[str, Sequence[tuple[int, Outcome]]], file: Path) -> None:
    """Left: each step doubles the bottleneck. Right: one part in other numbers, around the last step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    grown, lines = figure.subplots(1, 2)
    for number, step in enumerate(path):
        grown.bar(number, step.outcome.seconds, color=COLOURS[step.bottleneck])
    labels = [f"{step.plan.replicas}\n{step.plan.labelers}\n{step.plan.ranks}" for step in path]
    grown.set_xticks(range(len(path)), labels)
    grown.set_xlabel("inference replicas / labelers / learner ranks")
    grown.set_ylabel("seconds an iteration")
    handles = [grown.bar(0, 0, color=colour) for colour in COLOURS.values()]
    grown.legend(handles, [part or "none" for part in COLOURS], title="bottleneck")
    grown.set_title("Twice as many of the bottleneck, step by step")
    for (part, line), marker in zip(around.items(), "osv", strict=True):
        lines.plot(
            [n for n, _ in line],
            [outcome.seconds for _, outcome in line],
            marker=marker,
            color=COLOURS[part],
            label=part,
        )
    lines.set_xlabel("how many")
    lines.set_xscale("log", base=2)
    lines.set_yscale("log", base=2)
    for axis in (lines.xaxis, lines.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    lines.set_ylabel("seconds an iteration")
    lines.grid(alpha=0.3)
    lines.legend(title="of which, the others as in the last step")
    lines.set_title("Around the last step")
    figure.savefig(file, dpi=110)
