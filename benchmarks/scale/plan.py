"""What a simulation is asked about, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """A run and what it runs on. The defaults are those of `benchmarks.pipeline`, on one machine."""

    ahead: int = 0
    prompts: int = 4
    answers: int = 4
    """Of each prompt."""
    tokens: int = 24
    """Of each answer: the mean."""
    heldout: int = 32
    """Answers that a candidate is judged by."""
    iterations: int = 40
    labels: int = 4
    """That a group needs: one an answer where answers are scored, one a pair where they are compared."""
    label_seconds: float = 4.0
    """The mean."""
    label_spread: float = 0.0
    """Standard deviation of the logarithm: people's times are log-normal. 0: always the mean."""
    seed: int = 0
    """Of those times."""
    labelers: int = 2
    replicas: int = 1
    ranks: int = 1
    one_machine: bool = True
    """Engine and learner share its cores. Otherwise each replica and each rank has a machine of its own."""
    reduced_bytes: float = 4 * 4.9e6
    """Of the gradients that ranks add up: a LoRA of rank 16 on SmolLM2-135M, in float32."""
    link_bytes_per_second: float = 1.25e9
    """Between ranks: 10 Gbit/s. An assumption."""


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    """From row to row: the mean, the first quarter of the rows left out."""
    busy: dict[str, float]
    """Part -> share of its time that it works: `engine`, `labelers`, `learner`."""
    policy_age: float
    """Of the answers that are trained on, in versions: the mean."""
