"""`iterpo labels train-reward-model | train-reward-head`: reward models from stored preferences."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iterpo.cli.options import config_option, json_option, print_json
from iterpo.cli.stored import stored_events

if TYPE_CHECKING:
    from iterpo.labeling.feedback import Feedback, Pair

FEWEST_MEASURED = 50
"""Held-out pairs, below which an accuracy says little: its standard deviation is 7 % there."""

source_option = click.option(
    "--from",
    "source",
    type=click.Choice(["labels", "people", "rewards", "both"]),
    default="both",
    show_default=True,
    help="people: the labels without those that only machines gave.",
)


@click.command("train-reward-model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New directory for the reward model.")
@click.option("--base", type=click.Path(path_type=Path), default=None, help="Base model.  [default: model.path]")
@source_option
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
    with _Progress(f"{len(pairs)} pairs") as progress:
        metrics = train_reward_model(base_path, pairs, out, training, progress, rankings)
    _report(out, metrics, as_json)


@click.command("train-reward-head")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New directory for the reward model.")
@click.option("--base", type=click.Path(path_type=Path), default=None, help="Base model.  [default: model.path]")
@source_option
@click.option("--run", "run_id", default="", help="Only this run.  [default: every run]")
@click.option(
    "--max-pairs", type=click.IntRange(2), default=5000, show_default=True, help="The latest when there are more."
)
@click.option(
    "--layers",
    type=click.IntRange(0),
    default=0,
    help="Blocks of the base that are kept.  [default: a quarter of them]",
)
@config_option
@json_option
def train_head(
    out: Path,
    base: Path | None,
    source: str,
    run_id: str,
    max_pairs: int,
    layers: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Train a reward head in seconds: Bradley-Terry on the hidden states of the frozen base model's first layers.

    It learns from a few hundred labels what LoRA on the whole model needs thousands for, and its accuracy is measured
    on every pair, by cross-validation. To use it, add to iterpo.toml:

    \b
        [labelers.NAME]
        kind = "reward_model"
        path = "OUT"
    """
    from iterpo.config import load
    from iterpo.embedded_model import model_directory
    from iterpo.labeling.feedback import Feedback
    from iterpo.labeling.reward_head import HeadTraining, train_reward_head

    settings = load(config_path)
    pairs = known_pairs(Feedback.of(stored_events(settings, run_id)), source)[-max_pairs:]
    base_path = model_directory(base or settings.model.path, settings.data_dir)
    with _Progress(f"{len(pairs)} pairs") as progress:
        metrics = train_reward_head(base_path, pairs, out, HeadTraining(layers), progress.of)
    _report(out, metrics, as_json)


def known_pairs(feedback: Feedback, source: str) -> list[Pair]:
    """People's labels last: what is cut down to the latest keeps them."""
    pairs = list(feedback.reward_pairs()) if source in ("rewards", "both") else []
    return pairs + ([*feedback.label_pairs(by_people=source == "people")] if source != "rewards" else [])


def draw_pairs(feedback: Feedback, source: str, most: int, seed: int) -> list[Pair]:
    pairs = known_pairs(feedback, source)
    return random.Random(seed).sample(pairs, most) if len(pairs) > most else pairs


def _report(out: Path, metrics: Mapping[str, float], as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), **metrics})
    else:
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())
        click.echo(f"Reward model written to {out}: {shown}.")
    if metrics.get("heldout_pairs", 0.0) < FEWEST_MEASURED or metrics.get("heldout_accuracy", 0.0) <= 0.5:
        click.echo(
            f"Do not rely on it yet: it was measured on {metrics.get('heldout_pairs', 0.0):.0f} pairs, and right on "
            f"{metrics.get('heldout_accuracy', float('nan')):.0%} of them. It takes a few hundred labels.",
            err=True,
        )


class _Progress:
    """A bar on standard error; called with every Step of the training, or `of` with what is done and what there is."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(title, total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: Any) -> None:
        self._bar.update(self._task, completed=step.step, total=step.steps, description=f"loss {step.loss:.3f}")

    def of(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
