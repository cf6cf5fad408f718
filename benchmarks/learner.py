"""One update of GRPO and of online DPO on synthetic completions of the demo's shape, in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware_key, versions
from iterpo.embedded_model import prepare

PROMPT_TOKENS, COMPLETION_TOKENS, GROUPS, SIZE, REPEATS = 44, 48, 8, 8, 3


RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--algorithm", help="measure this one alone, in this process, and print it")
    arguments = parser.parse_args(argv)
    base = prepare(arguments.home / "models", lambda line: print(line, file=sys.stderr))
    if arguments.algorithm:
        print(json.dumps(measure(base, arguments.algorithm)))
        return
    found = {name: _apart(arguments.home, name) for name in ("grpo", "online_dpo")}
    result = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions(), **found}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"learner-{hardware_key()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), f"\nwritten to {path}", sep="")


def _apart(home: Path, algorithm: str) -> dict[str, Any]:
    """In a process of its own: peak memory is a process's own."""
    command = [sys.executable, "-m", "benchmarks.learner", "--home", str(home), "--algorithm", algorithm]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(base: Path, algorithm: str) -> dict[str, float]:
    from iterpo.algorithms import resolve
    from iterpo.demo.settings import demo_run
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig

    config = RunConfig.model_validate(demo_run(algorithm, 0, None))
    resolved = resolve(config)
    learner = LoraLearner(base, resolved, config)
    selection = resolved.response_sampling.select(groups(), 0)
    seconds = []
    for _ in range(REPEATS):
        started = time.monotonic()
        learner.update(selection)
        seconds.append(time.monotonic() - started)
    tokens = sum(len(c.prompt_token_ids) + len(c.token_ids) for c in selection.completions)
    best = sorted(seconds)[len(seconds) // 2]
    return {
        "completions": len(selection.completions),
        "update_seconds_p50": round(best, 2),
        "tokens_per_second": round(tokens / best, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def groups() -> list[Any]:
    from iterpo.types import Completion, FinishReason, Group, Message, Prompt

    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, 49_000) for _ in range(count))

    made = []
    for g in range(GROUPS):
        prompt, name = ids(PROMPT_TOKENS), f"g{g}"
        answers = tuple(
            Completion(f"{name}/{i}", name, name, "", prompt, ids(COMPLETION_TOKENS), (), FinishReason.STOP, 0, "")
            for i in range(SIZE)
        )
        rewards = {c.completion_id: draw.random() for c in answers}
        made.append(Group(name, Prompt(name, (Message("user", "x"),)), answers, rewards))
    return made


if __name__ == "__main__":
    main()
