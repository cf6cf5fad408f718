"""iterpo's side of the learner's comparison: `python -m benchmarks.learner_side MODEL`, asked by benchmarks.learner."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.child import serve_parent
from benchmarks.learner_task import LEARNING_RATE, LORA_ALPHA, LORA_RANK, Task, task
from services.torch_environment import set_defaults


def main(base: Path) -> None:
    set_defaults(OMP_WAIT_POLICY="passive")
    from iterpo.algorithms import resolve
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig

    config = RunConfig.model_validate(
        {
            "algorithm": "grpo",
            "kl": {"beta": 0.0},
            "learning_rate": LEARNING_RATE,
            "lora": {"r": LORA_RANK, "alpha": LORA_ALPHA},
        }
    )
    algorithm = resolve(config)
    learner = LoraLearner(base, algorithm, config)

    def answer(request: dict[str, Any]) -> dict[str, float]:
        selection = algorithm.response_sampling.select(groups(task(request["prompt_tokens"])), 0)
        started = time.monotonic()
        learner.update(selection)
        seconds = time.monotonic() - started
        return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    serve_parent(answer)


def groups(given: Task) -> list[Any]:
    from iterpo.types import Completion, FinishReason, Group, Message, Prompt

    made = []
    for g, (prompt, completions, rewards) in enumerate(
        zip(given.prompts, given.completions, given.rewards, strict=True)
    ):
        name = f"g{g}"
        answers = tuple(
            Completion(f"{name}/{i}", name, name, "", prompt, ids, (), FinishReason.STOP, 0, "")
            for i, ids in enumerate(completions)
        )
        scores = {c.completion_id: reward for c, reward in zip(answers, rewards, strict=True)}
        made.append(Group(name, Prompt(name, (Message("user", "x"),)), answers, scores))
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]))
