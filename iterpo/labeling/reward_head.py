"""A reward head: a reward that is a line on the hidden states of a frozen, shallow part of the base model.

    reward = w . h / sd,   h: last token's hidden state after the first `layers` blocks (and the final norm)
    w maximises  sum over pairs of weight * (p log s(d) + (1 - p) log s(-d))  -  |w|^2 H / (2 prior_margin^2),
    d = reward_first - reward_second, p = p_first_wins, sd [H] the root mean square of the pairs' differences of h

Bradley-Terry with a Gaussian prior under which a pair's margin is about N(0, prior_margin^2) before any label: convex,
one solution, seconds on a CPU. It can be trained again whenever labels come, and learns from a few hundred of them,
where LoRA on the whole model (reward_training.py) is slow and overfits. Frozen features with a small trained head are
what "Efficient Exploration for LLMs" (arXiv:2402.00396) and SEA (arXiv:2411.01493) learn people's taste with. Early
layers say more about a text than the last ones, which are about the next token ("Layer by Layer", arXiv:2502.02013).

Nothing is lost to measuring: margins of every pair come from fits that did not see its group (cross-validation), and
from these the accuracy and the temperature; the head itself is fitted to all pairs. Not implemented: uncertainty of w.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterpo.errors import InvalidInput
from iterpo.labeling.calibration import accuracy, calibrate, policy_calibration
from iterpo.labeling.feedback import Pair, check_preferences
from iterpo.labeling.reward_directory import check_absent, written_whole
from iterpo.labeling.reward_model import (
    HEAD_FILE,
    check_nothing_missing,
    classifier,
    encode,
    layer_count,
    load_tokenizer,
)
from iterpo.types import Completion, Prompt

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 16
"""Answers read at once."""


@dataclass(frozen=True, slots=True)
class HeadTraining:
    layers: int = 0
    """Blocks of the base model that are kept; 0: a quarter of them."""
    prior_margin: float = 1.0
    """Nats; 1 expects that people agree on 70 % of pairs."""
    folds: int = 5
    max_tokens: int = 1024
    """As the labeler's own."""
    dtype: str = "auto"
    """Of the base model: bfloat16 where the hardware multiplies it, else float32."""
    seed: int = 0


def train_reward_head(
    base_path: Path,
    pairs: Sequence[Pair],
    out_dir: Path,
    settings: HeadTraining | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, float]:
    """Write the head to `out_dir`, whole or not at all; `RewardModel` loads it. Returns the metrics: `loss` and
    `train_pairs` of the head; `heldout_pairs`, `heldout_accuracy` (share of untied pairs in the right order) and
    `temperature` by cross-validation over groups, absent with one group; `policy_accuracy` and `policy_temperature`
    (see `policy_calibration`); `layers`, `seconds`.

    Raises Conflict when `out_dir` exists, InvalidInput without an untied pair.
    """
    from safetensors.torch import save_file

    settings = settings or HeadTraining()
    started = time.monotonic()
    check_absent(out_dir)
    check_preferences(pairs)
    model, tokenizer = _frozen(base_path, settings)
    layers = model.config.num_hidden_layers
    difference = _differences(model, tokenizer, pairs, settings.max_tokens, progress)
    # Not the centred deviation: which answer of a pair is called the first must not matter.
    spread = difference.square().mean(0).sqrt().clamp(min=1e-6)
    problem = _Problem(difference / spread, pairs, settings.prior_margin)
    weight = problem.solve(range(len(pairs)))
    metrics = {"loss": problem.loss(weight), "train_pairs": float(len(pairs)), **_held_out(problem, pairs, settings)}
    metrics |= policy_calibration(pairs) | {"layers": float(layers), "seconds": time.monotonic() - started}
    record = {"base": str(base_path), "training": asdict(settings), "metrics": metrics}
    with written_whole(out_dir, record) as partial:
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        made_of = {"base": str(base_path.resolve()), "layers": str(layers), "dtype": dtype}
        save_file({"weight": (weight / spread).float()}, str(partial / HEAD_FILE), made_of)
    return metrics


class _Problem:
    """The penalised likelihood over [P, H] standardised differences."""

    def __init__(self, x: Tensor, pairs: Sequence[Pair], prior_margin: float) -> None:
        import torch

        self.x = x
        self.p = torch.tensor([pair.preference.p_first_wins for pair in pairs], dtype=x.dtype)
        self.weight = torch.tensor([pair.preference.weight for pair in pairs], dtype=x.dtype)
        self.penalty = x.shape[1] / (2 * prior_margin**2)

    def solve(self, rows: Sequence[int]) -> Tensor:
        """[H] w of these pairs alone."""
        import torch

        chosen = torch.tensor(rows)
        x, p, weight = self.x[chosen], self.p[chosen], self.weight[chosen]
        w = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [w], max_iter=200, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            value = (weight * _log_loss(x @ w, p)).sum() + self.penalty * w.square().sum()
            value.backward()
            return value

        optimizer.step(objective)
        return w.detach()

    def loss(self, w: Tensor) -> float:
        """Mean negative log-likelihood of all pairs, nats, by weight."""
        return float((self.weight * _log_loss(self.x @ w, self.p)).sum() / self.weight.sum())


def _log_loss(margin: Tensor, p: Tensor) -> Tensor:
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(margin, p, reduction="none")


def _held_out(problem: _Problem, pairs: Sequence[Pair], settings: HeadTraining) -> dict[str, float]:
    groups = sorted({pair.preference.group_id for pair in pairs})
    random.Random(settings.seed).shuffle(groups)
    fold_of = {group: number % settings.folds for number, group in enumerate(groups)}
    margins: list[float] = []
    first_wins: list[bool] = []
    for fold in sorted(set(fold_of.values())):
        inside = [n for n, pair in enumerate(pairs) if fold_of[pair.preference.group_id] != fold]
        outside = [n for n, pair in enumerate(pairs) if fold_of[pair.preference.group_id] == fold and not pair.tied]
        if inside and outside:
            margins += (problem.x[outside] @ problem.solve(inside)).tolist()
            first_wins += [pairs[n].preference.p_first_wins > 0.5 for n in outside]
    if not margins:
        return {}
    return {
        "heldout_pairs": float(len(margins)),
        "heldout_accuracy": accuracy(margins, first_wins),
        "temperature": calibrate(margins, first_wins),
    }


def _frozen(base_path: Path, settings: HeadTraining) -> tuple[Any, Any]:
    """A model whose one output is the last token's hidden state."""
    import torch

    from iterpo.precision import compute_dtype

    tokenizer = load_tokenizer(base_path)
    count = layer_count(base_path)
    if settings.layers > count:
        raise InvalidInput(
            f"The base model has {count} layers, and {settings.layers} were asked for.", f"Use at most {count}."
        )
    layers = settings.layers or max(1, round(count / 4))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, missing = classifier(base_path, compute_dtype(settings.dtype, device), layers)
    check_nothing_missing(base_path, missing)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.score = torch.nn.Identity()
    return model.to(device).eval(), tokenizer


def _differences(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], max_tokens: int, progress: Callable[[int, int], None]
) -> Tensor:
    """[P, H], float64: hidden state of the first less that of the second; every answer is read once."""
    import torch

    answers = {c.completion_id: (pair.prompt, c) for pair in pairs for c in (pair.first, pair.second)}
    hidden = _hidden_states(model, tokenizer, list(answers.values()), max_tokens, progress)
    row = {name: n for n, name in enumerate(answers)}
    first = [row[pair.first.completion_id] for pair in pairs]
    second = [row[pair.second.completion_id] for pair in pairs]
    return (hidden[torch.tensor(first)] - hidden[torch.tensor(second)]).double()


def _hidden_states(
    model: Any,
    tokenizer: Any,
    items: Sequence[tuple[Prompt, Completion]],
    max_tokens: int,
    progress: Callable[[int, int], None],
) -> Tensor:
    """[N, H]; answers of like length are read together, so that little is padding."""
    import torch

    order = sorted(range(len(items)), key=lambda n: len(items[n][0].text) + len(items[n][1].text))
    found: list[Tensor] = []
    steps = -(-len(items) // BATCH)
    with torch.inference_mode():
        for step in range(steps):
            batch = [items[n] for n in order[step * BATCH : (step + 1) * BATCH]]
            found += list(model(**encode(tokenizer, batch, max_tokens).to(model.device)).logits.cpu())
            progress(step + 1, steps)
    back = {n: place for place, n in enumerate(order)}
    return torch.stack([found[back[n]] for n in range(len(items))]).float()
