"""The demo's runs: each algorithm with what makes it learn a visible preference in minutes on two cores.

Published settings are made for long runs of large models; the demo takes a learning rate of 5e-4 to 1e-3 (TRL's own
demonstration of this kind used 5e-4), small groups and no KL, and says so here rather than hiding it.
"""

from __future__ import annotations

from typing import Any

from iterpo.algorithms import TABLE
from iterpo.errors import InvalidConfig

COMMON: dict[str, Any] = {
    "labeler": "one_friendly_sentence",
    "iterations": 12,
    "max_tokens": 48,
    "prompts_per_iteration": 8,
    "gate": {"min_heldout_gain": -0.1, "max_kl": 5.0},
}
GROUPS: dict[str, Any] = {"learning_rate": 1e-3, "minibatches": 2, "response_sampling": {"size": 8}}
PAIRS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "minibatches": 2,
    "response_sampling": {"name": "best_worst", "size": 8},
}
RUNS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-4, "minibatches": 2, "prompts_per_iteration": 16},
    "rft": {**GROUPS, "response_sampling": {"size": 8, "threshold": 0.6}},
    "grpo": {**GROUPS, "gradient_coefficient": {"beta": 0.0}},
    "dr_grpo": GROUPS,
    "dapo": {**GROUPS, "response_sampling": {"size": 8, "refill": 1}},
    "offline_dpo": {"learning_rate": 5e-4, "minibatches": 2, "prompts_per_iteration": 16},
    "iterative_dpo": PAIRS,
    "online_dpo": PAIRS,
}


def demo_run(algorithm: str, seed: int, iterations: int | None) -> dict[str, Any]:
    """The `[run]` section of the demo of an algorithm. Raises InvalidConfig for an unknown one."""
    if algorithm not in RUNS:
        raise InvalidConfig(f"Unknown algorithm {algorithm!r}.", f"Use one of: {', '.join(TABLE)}.")
    run = {**COMMON, **RUNS[algorithm], "algorithm": algorithm, "seed": seed}
    return {**run, "iterations": iterations} if iterations else run
