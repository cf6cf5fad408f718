"""`iterpo labels`: stored feedback as files for other programs, and back. What leads ask and decide is in
`label_quality`, reward models are in `reward_models`."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli import label_quality, reward_models
from iterpo.cli.options import config_option, json_option, print_json
from iterpo.cli.stored import stored_events

if TYPE_CHECKING:
    from iterpo.config import Settings
    from iterpo.labeling.imports import Imported

IMPORTERS = 16
"""Rows on their way at the same time: they share commits."""


@click.group()
def command() -> None:
    """Annotators and their quality; labels out and in; reward models."""


for each in (
    label_quality.annotators,
    label_quality.exclude,
    label_quality.readmit,
    label_quality.report,
    reward_models.train,
    reward_models.train_head,
):
    command.add_command(each)


@command.command()
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["trl", "kto", "rewardbench", "events", "parquet"]),
    required=True,
    help="trl: prompt/chosen/rejected; kto: prompt/completion/label; rewardbench: its columns; events: everything; "
    "parquet: a folder for `datasets`, with every label.",
)
@click.option(
    "--out", required=True, help="File to write, one JSON object a line; - is standard output. Parquet: folder."
)
@click.option("--run", "run_id", default="", help="Only this run.  [default: every run]")
@click.option("--names", is_flag=True, help="Annotators' own names instead of pseudonyms.")
@config_option
@json_option
def export(format_name: str, out: str, run_id: str, names: bool, config_path: Path | None, as_json: bool) -> None:
    """Write stored feedback to a file, whole or not at all."""
    from iterpo.config import load
    from iterpo.labeling.exports import FORMATS, Pseudonyms, line, pair_rows
    from iterpo.labeling.parquet import write_folder

    settings = load(config_path)
    events = stored_events(settings, run_id)
    if not names:
        events = Pseudonyms(pseudonym_key(settings.data_dir)).hide(events)
    if format_name == "parquet":
        rows = write_folder(Path(out), pair_rows(events))
    else:
        lines = (line(row) for row in FORMATS[format_name](events))
        if out == "-":
            for text in lines:
                click.echo(text)
            return
        rows = _write(Path(out), lines)
    if as_json:
        print_json({"format": format_name, "rows": rows, "out": out})
    else:
        click.echo(f"{rows} rows written to {out}.")


@command.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["trl", "kto", "rewardbench", "hh", "ultrafeedback"]),
    required=True,
    help="trl, kto, rewardbench: as exported; hh: Anthropic's dialogues; ultrafeedback: scored completions.",
)
@click.option("--run", "run_id", default="import", show_default=True, help="The run that the feedback belongs to.")
@click.option("--annotator", default="import", show_default=True, help="In whose name the labels are stored.")
@config_option
@json_option
def import_(path: Path, format_name: str, run_id: str, annotator: str, config_path: Path | None, as_json: bool) -> None:
    """Store the preferences of PATH, a JSON Lines file of another program.

    The whole file is read first: when a line cannot be, its number is named and nothing is stored. Importing the same
    file twice stores it once.
    """
    from iterpo.config import load
    from iterpo.labeling.imports import read_rows

    rows = read_rows(_lines(path), format_name)
    stored = store_rows(load(config_path), rows, run_id, annotator, _digest(path))
    if as_json:
        print_json({"rows": len(rows), "stored": stored, "run": run_id, "annotator": annotator})
    else:
        already = f" ({len(rows) - stored} were there already)" if stored < len(rows) else ""
        click.echo(f"{stored} rows stored under run {run_id}{already}.")


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["trl", "rewardbench", "hh", "ultrafeedback"]),
    default="trl",
    show_default=True,
    help="As for import.",
)
@click.option("--guideline", default="", help="A guideline's name, or the instruction itself.")
@click.option("--language", default="", help="BCP 47; empty: for everybody.")
@config_option
@json_option
def gold(path: Path, format_name: str, guideline: str, language: str, config_path: Path | None, as_json: bool) -> None:
    """Make gold tasks of PATH, a file of preferences that nobody doubts.

    They are mixed into what annotators get (labeling.gold_share), look like any other task, and measure who answers
    them. Twice the same file makes them once.
    """
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient
    from iterpo.config import load
    from iterpo.labeling.imports import read_rows

    rows, digest = read_rows(_lines(path), format_name), _digest(path)
    with connect_service(load(config_path), "labeling", "lead") as channel:
        client = LabelingClient(channel)
        for row in rows:
            client.gold(row, f"{digest}/{row.line}", guideline, language)
    if as_json:
        print_json({"gold_tasks": len(rows)})
    else:
        click.echo(f"{len(rows)} gold tasks are there.")


def store_rows(settings: Settings, rows: Sequence[Imported], run_id: str, annotator: str, digest: str) -> int:
    """How many were new. Each row has a request id of the file and its line, so nothing is stored twice."""
    from rich.progress import track

    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient

    channel = connect_service(settings, "labeling", "lead", person=annotator)
    with channel, ThreadPoolExecutor(IMPORTERS) as pool:
        client = LabelingClient(channel)
        sent = pool.map(lambda row: client.import_row(row, run_id, annotator, f"import/{digest}/{row.line}"), rows)
        return sum(track(sent, "importing", len(rows), console=_terminal(), transient=True))


def pseudonym_key(data_dir: Path) -> bytes:
    """Made at the first export, for its owner's eyes only; without it exports of different days cannot be joined."""
    path = data_dir / "pseudonyms.key"
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()


def _lines(path: Path) -> list[str]:
    from iterpo.errors import InvalidInput

    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", "Name a JSON Lines file in UTF-8."
        ) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _write(out: Path, lines: Iterable[str]) -> int:
    """Beside the target, then renamed over it. Raises InvalidInput when the place cannot be written to."""
    from iterpo.errors import InvalidInput

    partial = out.with_name(f".{out.name}.partial")
    rows = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for text in lines:
                file.write(text + "\n")
                rows += 1
        partial.replace(out)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}.", "Name a file in a writable place.") from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _terminal() -> Any:
    from rich.console import Console

    return Console(stderr=True)
