"""The demo's runs: each algorithm with what makes it learn a visible preference in minutes on two cores.

Published settings are made for long runs of large models. The demo takes learning rates of 5e-4 to 1e-3, small groups
and no KL term. DPO's beta is 0.5: at 0.1, on answers of some twenty tokens, pairs are pushed apart long after they are
told apart, and greedy answers fell into loops (held-out reward 0.45 after ten iterations against 0.72 after eight).
"""

from __future__ import annotations

from typing import Any

from iterpo.algorithms import Algorithm, find

COMMON: dict[str, Any] = {
    "labeler": "one_friendly_sentence",
    "iterations": 10,
    "max_tokens": 48,
    "minibatches": 2,
    "epochs": 1,
    "gate": {"min_heldout_gain": -0.1, "max_kl": 5.0},
}
REWARDED: dict[str, Any] = {"learning_rate": 1e-3, "prompts_per_iteration": 8}
PREFERRED: dict[str, Any] = {"learning_rate": 5e-4, "prompts_per_iteration": 16}
SIZE = 8
"""Answers a prompt, where the method lets choose."""
OWN: dict[str, dict[str, Any]] = {
    "rft": {"response_sampling": {"size": SIZE, "threshold": 0.6}},
    "online_dpo": {"response_sampling": {"name": "best_worst", "size": SIZE}},
    "star": {"response_sampling": {"size": SIZE, "threshold": 0.6}, "epochs": 8},
    "dapo": {"response_sampling": {"size": SIZE, "refill": 1}},
}
"""What single methods want otherwise."""


def demo_run(algorithm: str, seed: int, iterations: int | None) -> dict[str, Any]:
    """The `[run]` section of the demo of an algorithm. Raises InvalidConfig for an unknown one."""
    method = find(algorithm)
    run = {**COMMON, **_kind(method), **OWN.get(method.name, {}), "algorithm": method.name, "seed": seed}
    return {**run, "iterations": iterations} if iterations else run


def _kind(method: Algorithm) -> dict[str, Any]:
    sampler, coefficient = method.response_sampling, method.gradient_coefficient
    given = PREFERRED if sampler.offline or "pairs" in coefficient.needs else REWARDED
    kind = dict(given)
    if hasattr(sampler, "size"):
        kind["response_sampling"] = {"size": SIZE}
    if coefficient.name in ("dpo", "xpo", "tipo", "odpo", "tdpo"):
        kind["gradient_coefficient"] = {"beta": 0.5}
    if method.kl.beta:
        kind["kl"] = {"beta": 0.0}
    if method.critic_learning_rate:
        kind["critic_learning_rate"] = kind["learning_rate"]
    return kind
