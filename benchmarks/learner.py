"""`python -m benchmarks.learner`: one update of GRPO, ours beside TRL's GRPOTrainer on the same completions.

8 prompts of 64 tokens, 8 completions each of 12 to 48 tokens, the embedded model, LoRA of rank 16 on all linear layers,
bfloat16 autocast. Each side is a process of its own (peak memory is a process's), asked in turn; medians of the rounds
after a warm-up. TRL runs with its defaults, gradient checkpointing among them: without it a first update was no faster
on two cores. Its packages are installed apart from ours, under HOME/trl. Four minutes.

Not measured yet: longer prompts (`--prompt-tokens 512` takes twenty minutes), whole steps with sampling, DPO, more than
one seed of lengths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.learner_task import task
from benchmarks.machine import hardware_key, versions
from iterpo.embedded_model import prepare

ROUNDS = 5
PROMPT_TOKENS = (64,)
RESULTS = Path(__file__).parent / "results"
TRL_PACKAGES = (
    "trl==1.16.0",
    "datasets==5.2.0",
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "python-dateutil",
    "six",
    "tzdata",
    "xxhash",
)
"""What TRL needs and iterpo does not; the rest it shares with us, at our versions."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model and TRL are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="after a warm-up")
    parser.add_argument("--prompt-tokens", type=int, action="append", help="may be repeated  [default: 64]")
    arguments = parser.parse_args(argv)
    base = str(prepare(arguments.home / "models", print))
    trl = {"PYTHONPATH": f"{Path.cwd()}:{install_trl(arguments.home / 'trl')}", "OMP_WAIT_POLICY": "passive"}
    found = {}
    for tokens in arguments.prompt_tokens or PROMPT_TOKENS:
        children = {
            "iterpo": Child("benchmarks.learner_side", base),
            "trl": Child("benchmarks.trl_side", base, **trl),
        }
        found[f"prompts_of_{tokens}"] = compare(children, tokens, arguments.rounds)
        print(json.dumps(found, indent=1), flush=True)
    result = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions(), **found}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"learner-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


def compare(children: dict[str, Child], prompt_tokens: int, rounds: int) -> dict[str, Any]:
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    for number in range(rounds + 1):
        for name, child in children.items():
            answer = child.ask({"prompt_tokens": prompt_tokens})
            print(f"{prompt_tokens} tokens, round {number}: {name} {answer['seconds']:.2f} s", file=sys.stderr)
            if number:
                answers[name].append(answer)
    for child in children.values():
        child.shutdown()
    seconds = {name: statistics.median(a["seconds"] for a in rows) for name, rows in answers.items()}
    peaks = {name: rows[-1]["peak_mib"] for name, rows in answers.items()}
    return {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "tokens_per_second": {name: round(task(prompt_tokens).tokens / value, 1) for name, value in seconds.items()},
        "faster_than_trl": round(seconds["trl"] / seconds["iterpo"], 2),
        "faster_by_round": [
            round(trl["seconds"] / ours["seconds"], 2)
            for ours, trl in zip(answers["iterpo"], answers["trl"], strict=True)
        ],
        "peak_memory_mib": {name: round(value) for name, value in peaks.items()},
        "memory_of_trls": round(peaks["iterpo"] / peaks["trl"], 3),
    }


def install_trl(folder: Path) -> Path:
    """TRL's packages, with pip, once."""
    if not (folder / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, *TRL_PACKAGES], check=True, timeout=600)
    return folder.resolve()


if __name__ == "__main__":
    main()
