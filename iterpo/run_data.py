"""The files that a run's configuration names, or the demo's own where it names none."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from iterpo import prompts
from iterpo.algorithms import resolve
from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig
from iterpo.types import Example


def read_run_data(run: RunConfig, root: Path) -> tuple[list[Example], list[Example]]:
    """(examples, held-out examples); relative paths are relative to `root`, the folder of iterpo.toml.

    Raises InvalidConfig when only the file that the algorithm does not read is named, and what `prompts.read` raises.
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
    examples = prompts.read(root / named if named else demo_file(default))
    if sampling.offline and "pairs" not in sampling.provides:
        # A file of pairs serves as demonstrations: the chosen answers.
        examples = [replace(e, answers=e.answers[:1], p_first_wins=None) for e in examples]
    return examples, prompts.read(root / run.heldout if run.heldout else demo_file("heldout.jsonl"))


def demo_file(name: str) -> Path:
    """One of the demo's prompt files, which ship with the package."""
    return Path(str(files("iterpo.demo") / name))
