"""The demo's picture: rewards and KL over the iterations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iterpo.types import IterationRow


def save(rows: Sequence[IterationRow], before: float, title: str, path: Path) -> None:
    """PNG with held-out and training reward (left, [0, 1]) and KL in nats a token (right)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    rewards = figure.add_subplot()
    steps = [row.iteration for row in rows]
    rewards.plot([0, *steps], [before, *(r.heldout_reward for r in rows)], "o-", label="held-out, greedy")
    rewards.plot(steps, [r.train_reward for r in rows], ".--", label="training, sampled")
    refused = [r for r in rows if not r.promoted]
    rewards.plot([r.iteration for r in refused], [r.heldout_reward for r in refused], "rx", label="not promoted")
    rewards.set(xlabel="iteration", ylabel="reward", ylim=(0, 1), title=title)
    rewards.grid(alpha=0.3)
    kl = rewards.twinx()
    kl.plot(steps, [r.kl for r in rows], ":", color="gray", label="KL to the base (right)")
    kl.set(ylabel="nats a token")
    figure.legend(loc="outside lower center", ncols=4)
    FigureCanvasAgg(figure).print_png(str(path))
