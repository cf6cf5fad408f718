"""One update of GRPO and of online DPO on synthetic completions of the demo's shape, in a process of its own."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPT_TOKENS, COMPLETION_TOKENS, GROUPS, SIZE, REPEATS = 44, 48, 8, 8, 3


def measure_learner(base: Path) -> dict[str, Any]:
    """Runs this file as a program: peak memory is a process's own."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    found = {}
    for algorithm in ("grpo", "online_dpo"):
        command = [sys.executable, "-m", "benchmarks.learner", str(base), algorithm]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=1800)
        found[algorithm] = json.loads(done.stdout.splitlines()[-1])
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
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
