"""How far both sides of the learner's comparison came with as many tokens, and with as many steps."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learner_services import Services

REACHED = ("trl", "iterpo", "iterpo_between", "iterpo_as_many_steps")
Curve = list[tuple[int, float]]
"""Tokens sampled so far, and the held-out reward, after each step."""
COLOURS = {"trl": "#e69f00", "iterpo": "#0072b2"}
"""Okabe and Ito's: told apart by every eye."""


def our_curve(services: Services, steps: int, seed: int) -> Curve:
    rows = services.run("grpo", steps, seed)
    sampled = itertools.accumulate(row.metrics["sampled_tokens"] for row in rows)
    return [(int(tokens), round(row.heldout_reward, 4)) for tokens, row in zip(sampled, rows, strict=True)]


def reached(trl: Curve, iterpo: Curve) -> dict[str, float]:
    """REACHED of one seed, and the tokens that both had. Raises ValueError when ours ended before it had as many."""
    tokens, theirs = trl[-1]
    sampled, rewards = (list(column) for column in zip(*iterpo, strict=True))
    if sampled[-1] < tokens:
        raise ValueError(f"ours ended at {sampled[-1]} of {tokens} tokens: give it more steps")
    return {
        "tokens": tokens,
        "trl": theirs,
        "iterpo": [reward for so_far, reward in iterpo if so_far <= tokens][-1],
        "iterpo_between": round(float(np.interp(tokens, sampled, rewards)), 4),
        "iterpo_as_many_steps": iterpo[len(trl) - 1][1],
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean with a 95 % interval by Student's t, where there are three seeds at least: of two it says nothing."""
    mean = statistics.mean(values)
    found: dict[str, Any] = {"mean": round(mean, 4)}
    if len(values) < 3:
        return found
    quantile = {3: 4.303, 4: 3.182, 5: 2.776}[len(values)]
    half = quantile * statistics.stdev(values) / len(values) ** 0.5
    return found | {"interval": [round(mean - half, 4), round(mean + half, 4)]}


def draw(by_seed: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Every seed's curves, over tokens and over steps; in bold the mean of the seeds after as many steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    over_tokens, over_steps = figure.subplots(1, 2, sharey=True)
    for side, colour in COLOURS.items():
        curves = [row[f"{side}_steps"] for row in by_seed.values()]
        for curve in curves:
            tokens, rewards = zip(*curve, strict=True)
            over_tokens.plot(tokens, rewards, color=colour, alpha=0.6)
            over_steps.plot(range(1, len(curve) + 1), rewards, color=colour, alpha=0.3)
        means = [statistics.mean(reward for _, reward in step) for step in zip(*curves, strict=True)]
        over_steps.plot(range(1, len(means) + 1), means, color=colour, linewidth=3)
        over_tokens.plot([], [], color=colour, label=side)
    over_tokens.set_xlabel("sampled tokens")
    over_steps.set_xlabel("steps")
    over_tokens.set_ylabel("held-out reward")
    over_tokens.legend()
    figure.savefig(file, dpi=110)
