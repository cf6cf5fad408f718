"""The files that a run's configuration names, or the demo's own where it names none."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from iterpo import prompts
from iterpo.run_config import RunConfig
from iterpo.types import Example

OFFLINE = ("sft", "offline_dpo")


def read_run_data(run: RunConfig, root: Path) -> tuple[list[Example], list[Example]]:
    """(examples, held-out examples); relative paths are relative to `root`, the folder of iterpo.toml."""
    named = run.pairs or run.prompts
    default = "pairs.jsonl" if run.algorithm in OFFLINE else "prompts.jsonl"
    examples = prompts.read(root / named if named else demo_file(default))
    if run.algorithm == "sft":  # a file of pairs serves as demonstrations: the chosen answers
        examples = [replace(e, answers=e.answers[:1], p_first_wins=None) for e in examples]
    return examples, prompts.read(root / run.heldout if run.heldout else demo_file("heldout.jsonl"))


def demo_file(name: str) -> Path:
    """One of the demo's prompt files, which ship with the package."""
    return Path(str(files("iterpo.demo") / name))
