"""`iterpo run`: start, status, watch, pause, resume, stop and replay a run of the learner."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json


@click.group()
def command() -> None:
    """Start, watch, pause, resume, stop and replay learning."""


@command.command()
@click.argument("name", required=False)
@click.option("--algorithm", default=None, help="Instead of run.algorithm of iterpo.toml.")
@click.option("--iterations", type=click.IntRange(1), default=None, help="Instead of run.iterations.")
@click.option("--seed", type=int, default=None, help="Instead of run.seed.")
@click.option("--watch/--detach", "follow", default=True, help="Stay and show rows as they come.  [default: watch]")
@config_option
@json_option
def start(
    name: str | None,
    algorithm: str | None,
    iterations: int | None,
    seed: int | None,
    follow: bool,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Start run NAME (default: the algorithm and the time) with the [run] section of iterpo.toml."""
    from iterpo.config import load
    from iterpo.run_data import read_run_data

    settings = load(config_path)
    given = {"algorithm": algorithm, "iterations": iterations, "seed": seed}
    run = settings.run.model_copy(update={k: v for k, v in given.items() if v is not None})
    examples, heldout, dropped = read_run_data(run, (config_path or Path("iterpo.toml")).resolve().parent)
    for reason, count in dropped.items():
        click.echo(f"{count} pairs left out: {reason}", err=True)
    run_id = name or f"{run.algorithm}-{time.strftime('%Y%m%d-%H%M%S')}"
    client = _client(config_path)
    started = client.start(run_id, run.model_dump(mode="json", exclude_none=True), examples, heldout)
    if follow:
        _follow(client, run_id, as_json)
    else:
        _show(started, as_json)


@command.command()
@click.argument("name", required=False)
@config_option
@json_option
def status(name: str | None, config_path: Path | None, as_json: bool) -> None:
    """All runs, or one run NAME with its rows."""
    client = _client(config_path)
    if name is None:
        runs = client.runs()
        if as_json:
            print_json([_plain(run) for run in runs])
        elif not runs:
            click.echo("No runs yet. Start one with: iterpo run start")
        for run in () if as_json else runs:
            _show(run, False)
        return
    found = client.get(name)
    if as_json:
        print_json({"run": _plain(found.run), "rows": [_plain(row) for row in found.rows]})
        return
    _show(found.run, False)
    for row in found.rows:
        click.echo(row_line(row))


@command.command()
@click.argument("name", required=False)
@click.option("--lines", is_flag=True, help="A line an iteration instead of a screen, as into a pipe.")
@config_option
@json_option
def watch(name: str | None, lines: bool, config_path: Path | None, as_json: bool) -> None:
    """Watch run NAME (default: the newest) until it ends: curves and the latest iterations on one screen.

    Into a pipe, or with --lines, a line an iteration.
    """
    client = _client(config_path)
    run_id = name or _newest(client)
    if as_json or lines or not sys.stdout.isatty():
        _follow(client, run_id, as_json)
    else:
        _watch_screen(client, run_id)


@command.command()
@click.argument("name", required=False)
@config_option
@json_option
def pause(name: str | None, config_path: Path | None, as_json: bool) -> None:
    """Hold run NAME (default: the newest) at its next safe point."""
    client = _client(config_path)
    _show(client.pause(name or _newest(client)), as_json)


@command.command()
@click.argument("name", required=False)
@click.option("--watch/--detach", "follow", default=False, help="Stay and show rows as they come.  [default: detach]")
@config_option
@json_option
def resume(name: str | None, follow: bool, config_path: Path | None, as_json: bool) -> None:
    """Go on with run NAME (default: the newest): after a pause, a stop, or a crash from the last checkpoint."""
    client = _client(config_path)
    run_id = name or _newest(client)
    resumed = client.resume(run_id)
    if follow:
        _follow(client, run_id, as_json)
    else:
        _show(resumed, as_json)


@command.command()
@click.argument("name", required=False)
@config_option
@json_option
def stop(name: str | None, config_path: Path | None, as_json: bool) -> None:
    """End run NAME (default: the newest) at its next safe point; it can be resumed."""
    client = _client(config_path)
    _show(client.stop(name or _newest(client)), as_json)


@command.command()
@click.argument("name")
@click.option("--without", "without", multiple=True, required=True, help="An annotator; may be repeated.")
@click.option("--as", "replay_name", default=None, help="Name of the new run.  [default: NAME and the time]")
@click.option("--watch/--detach", "follow", default=True, help="Stay and show rows as they come.  [default: watch]")
@config_option
@json_option
def replay(
    name: str, without: tuple[str, ...], replay_name: str | None, follow: bool, config_path: Path | None, as_json: bool
) -> None:
    """Train run NAME again without an annotator's feedback, from the version before the first one that it touched.

    The annotator is taken out first, as by `iterpo labels exclude`. The groups of every iteration since are learned
    again, with their preferences made anew; the result is one candidate, which must pass proof and gate. A replay of a
    replay trains the original run again, without those whom the replay left out, too.
    """
    from iterpo.cli.label_quality import set_state, touched_by
    from iterpo.config import load
    from iterpo.errors import InvalidInput
    from iterpo.types import AnnotatorState

    settings = load(config_path)
    client = _client(config_path)
    of, named = client.get(name, most_rows=1).run.replay_of, without
    origin, without = of.run_id or name, tuple(dict.fromkeys([*of.without, *without]))
    touched = [touched_by(settings, annotator) for annotator in without]
    firsts = [first for each in touched if (first := each.first_iteration(origin))]
    if not firsts:
        raise InvalidInput(
            f"Nothing of run {origin!r} was trained on the feedback of {', '.join(without)}.",
            "See what was: iterpo labels exclude ANNOTATOR",
            "NOTHING_TOUCHED",
        )
    for annotator in named:  # whom an earlier replay left out, a lead may have readmitted since
        set_state(settings, annotator, AnnotatorState.EXCLUDED, f"replay of {name}")
    for annotator, each in zip(without, touched, strict=True):
        for line in each.sentences(annotator)[:2]:
            click.echo(line, err=as_json)
    run_id = replay_name or f"{name}-without-{time.strftime('%Y%m%d-%H%M%S')}"
    started = client.replay(origin, run_id, min(firsts), without)
    if follow:
        _follow(client, run_id, as_json)
    else:
        _show(started, as_json)


@command.command()
@click.argument("name", required=False)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file.  [default: NAME.html]")
@config_option
@json_option
def report(name: str | None, out: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Write run NAME (default: the newest) as one HTML file that needs nothing else.

    Configuration, curves, held-out answers before and after, labels, versions and the gate's decisions, hardware,
    versions of everything, and how to repeat it.
    """
    from iterpo.cli.run_report import Report, html
    from iterpo.config import load

    settings = load(config_path)
    client = _client(config_path)
    run_id = name or _newest(client)
    found = client.get(run_id)
    versions, labels = _versions_of(settings, run_id), _labels_of(settings, run_id)
    made = html(Report(found.run, _state(found.run), found.rows, client.describe(run_id), versions, labels))
    path = out or Path(f"{run_id}.html")
    path.write_text(made, encoding="utf-8")
    if as_json:
        print_json({"run_id": run_id, "path": str(path), "bytes": len(made.encode())})
    else:
        click.echo(f"written to {path}")


def _versions_of(settings: Any, run_id: str) -> list[Any]:
    """Empty, with a word, when inference is away: a report of an old run does not need it."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.inference import PolicyClient
    from iterpo.errors import Unavailable

    try:
        versions = PolicyClient(connect_service(settings, "inference")).versions()
    except Unavailable as error:
        click.echo(f"without policy versions: {error.message}", err=True)
        return []
    return [version for version in versions if version.run_id == run_id]


def _labels_of(settings: Any, run_id: str) -> dict[str, int]:
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.errors import Unavailable

    try:
        return dict(LabelingClient(connect_service(settings, "labeling")).report(run_id).labels_by_source)
    except Unavailable as error:
        click.echo(f"without labels: {error.message}", err=True)
        return {}


def _client(config_path: Path | None) -> Any:
    from iterpo.clients.channel import connect_service
    from iterpo.clients.learner import LearnerClient
    from iterpo.config import load

    return LearnerClient(connect_service(load(config_path), "learner"))


def _newest(client: Any) -> str:
    from iterpo.errors import NotFound

    runs = client.runs()
    if not runs:
        raise NotFound("There are no runs.", "Start one with: iterpo run start", "RUN_NOT_FOUND")
    return str(runs[-1].run_id)


def _follow(client: Any, run_id: str, as_json: bool) -> None:
    """Rows as lines; changes of status on stderr, so that stdout stays a table or JSON Lines."""
    last, headed = "", as_json
    for news in client.watch(run_id):
        if not headed:  # not before it is known that there is such a run
            click.echo(HEADER)
            headed = True
        if news.HasField("row"):
            if as_json:
                print_json(_plain(news.row))
            else:
                click.echo(row_line(news.row))
        elif news.run.status != last and not as_json:
            last = news.run.status
            click.echo(f"  {_state(news.run)}: {last}", err=True)
    _raise_if_failed(news.run)


def _raise_if_failed(run: Any) -> None:
    from iterpo.errors import IterpoError

    if run.state == _failed():
        raise IterpoError(f"Run {run.run_id} failed: {run.status}", "See the learner's log.", "RUN_FAILED")


def _watch_screen(client: Any, run_id: str) -> None:
    from rich.console import Console
    from rich.live import Live

    from iterpo.cli.run_screen import SHOWN_ROWS, screen

    rows: list[Any] = []
    with Live(console=Console(), auto_refresh=False, transient=False) as live:
        for news in client.watch(run_id):
            if news.HasField("row"):
                rows.append(news.row)
                if news.row.iteration < news.run.iteration:
                    continue  # earlier rows of a long run: drawn with the latest one
            lines = [row_line(row) for row in rows[-SHOWN_ROWS:]]
            shown = screen(news.run, _state(news.run), heldout_gain(news.run), rows, HEADER, lines)
            live.update(shown, refresh=True)
    _raise_if_failed(news.run)


HEADER = "iteration  version  gate      train  held-out     KL  proof  swap ms  load s  tokens/s  seconds"


def row_line(row: Any) -> str:
    """One iteration under HEADER."""
    gate = "promoted" if row.promoted else "refused" if row.HasField("decision") else "no update"
    return (
        f"{row.iteration:9d} {row.policy_version:8d}  {gate:9s} {row.train_reward:5.3f} {row.heldout_reward:9.3f} "
        f"{row.kl_nats:6.3f}  {'ok' if row.proved else '-':5s} {1000 * row.swap_seconds:8.2f} {row.load_seconds:7.2f} "
        f"{row.tokens_per_second:9.0f} {row.seconds:8.1f}"
    )


def _show(run: Any, as_json: bool) -> None:
    if as_json:
        print_json(_plain(run))
        return
    click.echo(
        f"{run.run_id}  {run.algorithm}  {_state(run)}  iteration {run.iteration}/{run.iterations}  "
        f"version {run.policy_version}  {heldout_gain(run)}  {run.status}"
    )


def heldout_gain(run: Any) -> str:
    before, now = ("-" if math.isnan(v) else f"{v:.3f}" for v in (run.heldout_reward_before, run.heldout_reward))
    return f"held-out {before} -> {now}"


def _state(run: Any) -> str:
    from iterpo.v1 import learner_pb2

    return learner_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()


def _failed() -> int:
    from iterpo.v1 import learner_pb2

    return int(learner_pb2.RUN_STATE_FAILED)


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)
