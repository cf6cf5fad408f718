"""The files that a run's configuration names, or the demo's own where it names none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from iterpo import prompts
from iterpo.algorithms import resolve
from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig
from iterpo.types import Example
from iterpo.values import chosen_by


class RunData(NamedTuple):
    examples: list[Example]
    heldout: list[Example]
    dropped: Counter[str]
    """Pairs left out because of their values, by reason."""


def read_run_data(run: RunConfig, root: Path) -> RunData:
    """Relative paths are relative to `root`, the folder of iterpo.toml.

    Raises InvalidConfig when only the file that the algorithm does not read is named, and what `prompts.read` and
    `values.chosen_by` raise.
    """
    sampling = resolve(run).response_sampling
    key, other, default = (
        ("pairs", "prompts", "pairs.jsonl") if sampling.offline else ("prompts", "pairs", "prompts.jsonl")
    )
    named = getattr(run, key)
    if not named and getattr(run, other):
        raise InvalidConfig(
            f"Response sampling {sampling.name!r} reads run.{key}, and only run.{other} is set.", f"Set run.{key}."
        )
    examples, dropped = chosen_by(
        prompts.read(root / named if named else demo_file(default)), run.value, run.min_consistency
    )
    if sampling.offline and "pairs" not in sampling.provides:
        # A file of pairs serves as demonstrations: the chosen answers.
        examples = [replace(e, answers=e.answers[:1], p_first_wins=None) for e in examples]
    return RunData(examples, prompts.read(root / run.heldout if run.heldout else demo_file("heldout.jsonl")), dropped)


def demo_file(name: str) -> Path:
    """One of the demo's prompt files, which ship with the package."""
    return Path(str(files("iterpo.demo") / name))
