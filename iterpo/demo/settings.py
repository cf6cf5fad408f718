"""The demo's runs: each algorithm with what makes it learn a visible preference in minutes on two cores.

Published settings are made for long runs of large models. The demo takes learning rates of 5e-4 to 1e-3, small groups
and no KL term. DPO's beta is 0.5: at 0.1, on answers of some twenty tokens, pairs are pushed apart long after they are
told apart, and greedy answers fell into loops (held-out reward 0.45 after ten iterations against 0.72 after eight).
"""

from __future__ import annotations

from typing import Any

from iterpo.algorithms import TABLE
from iterpo.errors import InvalidConfig

COMMON: dict[str, Any] = {
    "labeler": "one_friendly_sentence",
    "iterations": 10,
    "max_tokens": 48,
    "prompts_per_iteration": 8,
    "gate": {"min_heldout_gain": -0.1, "max_kl": 5.0},
}
GROUPS: dict[str, Any] = {"learning_rate": 1e-3, "minibatches": 2, "response_sampling": {"size": 8}}
PAIRS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "minibatches": 2,
    "prompts_per_iteration": 16,
    "response_sampling": {"name": "best_worst", "size": 8},
    "gradient_coefficient": {"beta": 0.5},
}
RUNS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-4, "minibatches": 2, "prompts_per_iteration": 16},
    "rft": {**GROUPS, "response_sampling": {"size": 8, "threshold": 0.6}},
    "grpo": {**GROUPS, "kl": {"beta": 0.0}},
    "dr_grpo": GROUPS,
    "dapo": {**GROUPS, "response_sampling": {"size": 8, "refill": 1}},
    "offline_dpo": {**PAIRS, "response_sampling": {}},
    "iterative_dpo": PAIRS,
    "online_dpo": PAIRS,
}


def demo_run(algorithm: str, seed: int, iterations: int | None) -> dict[str, Any]:
    """The `[run]` section of the demo of an algorithm. Raises InvalidConfig for an unknown one."""
    if algorithm not in RUNS:
        raise InvalidConfig(f"Unknown algorithm {algorithm!r}.", f"Use one of: {', '.join(TABLE)}.")
    run = {**COMMON, **RUNS[algorithm], "algorithm": algorithm, "seed": seed}
    return {**run, "iterations": iterations} if iterations else run
