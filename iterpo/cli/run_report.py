"""`iterpo run report`: a run as one HTML file that needs nothing else: to keep, to send, to compare with."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from iterpo.cli.options import printable
from iterpo.cli.run_screen import SERIES

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2330; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
td, th { border-bottom: 1px solid #c9cfd9; padding: .3rem .6rem; text-align: start; vertical-align: top; }
th { color: #566074; font-weight: 600; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; width: 33%; }
.number { text-align: end; font-variant-numeric: tabular-nums; }
pre { background: #f4f5f7; border: 1px solid #c9cfd9; border-radius: 6px; padding: .8rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of the file's content: whatever a policy wrote, a browser loads and runs nothing."""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    run: Any
    """iterpo.v1.Run"""
    state: str
    rows: Sequence[Any]
    """iterpo.v1.IterationRow"""
    description: Mapping[str, Any]
    versions: Sequence[Any]
    """PolicyVersion, of this run."""
    labels: Mapping[str, int]
    """People's and machines' labels of this run by source; empty when labeling was away, or there are none."""


def html(report: Report) -> str:
    run, about = report.run, report.description
    gain = f"{_number(run.heldout_reward_before)} → {_number(run.heldout_reward)}"
    facts = [
        ("Method", run.algorithm),
        ("State", f"{report.state}: {run.status}"),
        ("Iterations", f"{run.iteration} of {run.iterations}"),
        ("Held-out reward", gain),
        ("Policy version", str(run.policy_version)),
        ("Hardware", ", ".join(f"{name} {value}" for name, value in about["hardware"].items())),
        ("Versions", ", ".join(f"{name} {value}" for name, value in about["versions"].items())),
    ]
    parts = [
        f"<h1>{_text(run.run_id)}</h1>",
        _table((), facts),
        "<h2>Curves</h2>",
        curves(report.rows),
        "<h2>Held-out answers, before and after</h2>",
        _answers(about["heldout"]),
        "<h2>Labels</h2>",
        _table(("source", "labels"), sorted(report.labels.items())) if report.labels else "<p>None of people.</p>",
        "<h2>Iterations</h2>",
        _table(("iteration", "version", "gate", "train", "held-out", "KL", "seconds", "because"), _rows(report.rows)),
        "<h2>Policy versions</h2>",
        _table(("version", "state", "from", "method", "digest"), _versions(report.versions)),
        "<h2>To repeat it</h2>",
        f"<pre>{_text(recipe(run.run_id, about['config']))}</pre>",
    ]
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    title = f"<title>{_text(run.run_id)} · iterpo</title><style>{STYLE}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}</head><body>\n{body}\n</body></html>\n'


def curves(rows: Sequence[Any]) -> str:
    """One SVG of all series that the run has."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    known = [(name, points) for name, value in SERIES if (points := _points(rows, value))]
    if not known:
        return "<p>No iteration was committed.</p>"
    lines = math.ceil(len(known) / 3)
    figure = Figure(figsize=(12, 2.6 * lines), layout="constrained")
    for place, (name, points) in enumerate(known):
        axes = figure.add_subplot(lines, 3, place + 1)
        axes.plot(*zip(*points, strict=True), ".-", markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "iterpo"}):  # the same curves give the same file
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def _points(rows: Sequence[Any], value: Any) -> list[tuple[int, float]]:
    found = [(row.iteration, value(row)) for row in rows]
    return [(iteration, number) for iteration, number in found if math.isfinite(number)]


def recipe(run_id: str, config: Mapping[str, Any]) -> str:
    """iterpo.toml's [run] section, and the command that starts it."""
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    sections = {name: value for name, value in config.items() if isinstance(value, dict) and value}
    lines = ["# iterpo.toml", "[run]", *(f"{name} = {json.dumps(value)}" for name, value in plain.items())]
    for name, section in sections.items():
        lines += ["", f"[run.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join([*lines, "", f"# iterpo up, and in another terminal:\niterpo run start {run_id}-again"])


def _answers(heldout: Mapping[str, Any]) -> str:
    if not heldout:
        return "<p>None were kept.</p>"
    before, after = heldout["before"], heldout["after"]
    lines = [
        (_asked(old["prompt"]), _answer(old), _answer(new))
        for old, new in zip(before["answers"], after["answers"], strict=True)
    ]
    return _table(("prompt", f"version {before['version']}", f"version {after['version']}"), lines, "answer")


def _asked(messages: Iterable[Mapping[str, str]]) -> str:
    return "\n".join(m["content"] for m in messages)


def _answer(answer: Mapping[str, Any]) -> str:
    return f"{answer['text']}\n\nreward {_number(answer['reward'])}"


def _rows(rows: Sequence[Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(row.iteration),
            str(row.policy_version),
            "promoted" if row.promoted else "refused" if row.HasField("decision") else "no update",
            *(_number(n) for n in (row.train_reward, row.heldout_reward, row.kl_nats, row.seconds)),
            " ".join(row.decision.reasons),
        )
        for row in rows
    ]


def _versions(versions: Sequence[Any]) -> list[tuple[str, ...]]:
    return [(str(v.version), v.state.value, str(v.parent), v.method, v.digest[:12]) for v in versions]


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _table(columns: Sequence[str], lines: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Without columns the first cell of a line is its heading."""
    head = f"<tr>{''.join(f'<th>{_text(c)}</th>' for c in columns)}</tr>" if columns else ""
    body = []
    for line in lines:
        cells = [str(cell) for cell in line]
        first = f"<th>{_text(cells[0])}</th>" if not columns else f'<td class="{kind}">{_text(cells[0])}</td>'
        body.append(f"<tr>{first}{''.join(f'<td class={json.dumps(kind)}>{_text(c)}</td>' for c in cells[1:])}</tr>")
    return f"<table>{head}{''.join(body)}</table>"


def _text(text: str) -> str:
    """Inert, with nothing hidden in it."""
    return escape(printable(text))
