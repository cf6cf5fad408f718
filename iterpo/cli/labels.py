"""`iterpo labels`: stored feedback as files for other programs, and reward models trained on it. What leads ask and
decide is in `label_quality`."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli import label_quality
from iterpo.cli.options import config_option, json_option, print_json

if TYPE_CHECKING:
    from iterpo.config import Settings
    from iterpo.labeling.feedback import Feedback, Pair
    from iterpo.labeling.imports import Imported
    from iterpo.types import FeedbackEvent

IMPORTERS = 16
"""Rows on their way at the same time: they share commits."""
IDLE_SECONDS = 1.0
"""The store is read to its end; in a busy run, up to the events of the moment when the command began."""


@click.group()
def command() -> None:
    """Annotators and their quality; labels out and in; reward models."""


for each in (label_quality.annotators, label_quality.exclude, label_quality.readmit, label_quality.report):
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


@command.command("train-reward-model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New directory for the reward model.")
@click.option("--base", type=click.Path(path_type=Path), default=None, help="Base model.  [default: model.path]")
@click.option(
    "--from",
    "source",
    type=click.Choice(["labels", "people", "rewards", "both"]),
    default="both",
    show_default=True,
    help="people: the labels without those that only machines gave.",
)
@click.option("--run", "run_id", default="", help="Only this run.  [default: every run]")
@click.option(
    "--max-pairs", type=click.IntRange(2), default=500, show_default=True, help="Drawn at random when there are more."
)
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch-pairs", type=click.IntRange(1), default=8, show_default=True, help="Pairs a step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True)
@click.option("--rank", type=click.IntRange(1), default=16, show_default=True, help="LoRA rank; alpha is twice it.")
@click.option(
    "--objective", type=click.Choice(["bradley-terry", "plackett-luce"]), default="bradley-terry", show_default=True
)
@click.option("--margin", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--graded", is_flag=True, help="The margin follows the strength of labels.")
@click.option("--centering", type=click.FloatRange(0), default=0.0, show_default=True, help="Published: 0.01.")
@click.option("--heldout-share", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Of the groups.")
@click.option("--seed", type=int, default=0, show_default=True)
@config_option
@json_option
def train(
    out: Path,
    base: Path | None,
    source: str,
    run_id: str,
    max_pairs: int,
    epochs: int,
    batch_pairs: int,
    learning_rate: float,
    rank: int,
    objective: str,
    margin: float,
    graded: bool,
    centering: float,
    heldout_share: float,
    seed: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Train a reward model on stored preferences: Bradley-Terry or Plackett-Luce, LoRA on the base model.

    People's labels and the rewards of verifiers both make preferences: pairs within a group whose rewards differ.
    Plackett-Luce learns from whole groups in the order of their rewards. The result is an adapter with its score head;
    to use it, add to iterpo.toml:

    \b
        [labelers.NAME]
        kind = "reward_model"
        path = "OUT"
    """
    from iterpo.config import load
    from iterpo.embedded_model import model_directory
    from iterpo.errors import InvalidInput
    from iterpo.labeling.feedback import Feedback
    from iterpo.labeling.reward_training import RewardTraining, train_reward_model

    settings = load(config_path)
    feedback = Feedback.of(stored_events(settings, run_id))
    pairs = draw_pairs(feedback, source, max_pairs, seed)
    rankings = list(feedback.rankings()) if objective == "plackett-luce" else []
    if objective == "plackett-luce" and not rankings:
        raise InvalidInput(
            "There is no group with two different rewards to rank.", "Use --objective bradley-terry.", "NO_PREFERENCES"
        )
    training = RewardTraining(
        epochs, batch_pairs, learning_rate, rank, 2 * rank, margin, graded, centering, heldout_share, seed=seed
    )
    base_path = model_directory(base or settings.model.path, settings.data_dir)
    with _Progress(len(pairs)) as progress:
        metrics = train_reward_model(base_path, pairs, out, training, progress, rankings)
    if as_json:
        print_json({"out": str(out), **metrics})
    else:
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())
        click.echo(f"Reward model written to {out}: {shown}.")


def stored_events(settings: Settings, run_id: str) -> Iterator[FeedbackEvent]:
    """What the labeling service has stored until now, over StreamFeedback. Raises IterpoErrors."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.labeling import LabelingClient

    began = time.time()
    with connect_service(settings, "labeling", "learner") as channel:
        for event in LabelingClient(channel).stream(run_id, 0, IDLE_SECONDS):
            if event.created_at > began:
                return
            yield event


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

    with connect_service(settings, "labeling", "lead") as channel, ThreadPoolExecutor(IMPORTERS) as pool:
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


def draw_pairs(feedback: Feedback, source: str, most: int, seed: int) -> list[Pair]:
    pairs = [*feedback.label_pairs(by_people=source == "people")] if source != "rewards" else []
    pairs += feedback.reward_pairs() if source in ("rewards", "both") else []
    return random.Random(seed).sample(pairs, most) if len(pairs) > most else pairs


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


class _Progress:
    """A bar on standard error; called with every Step of the training."""

    def __init__(self, pairs: int) -> None:
        from rich.progress import Progress

        self._bar = Progress(console=_terminal(), transient=True)
        self._task = self._bar.add_task(f"{pairs} pairs", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: Any) -> None:
        self._bar.update(self._task, completed=step.step, total=step.steps, description=f"loss {step.loss:.3f}")
