"""Training a reward model from stored preferences, with LoRA on the base model: Bradley-Terry or Plackett-Luce.

Bradley-Terry, of a pair:
    weight * ( -p log s(d) - (1 - p) log s(-d) + centering * (r_first + r_second)^2 ),
    d = r_first - r_second - m * sign(p - 1/2), s the logistic function, p = p_first_wins: for p = 1 it is the
    -log s(r_w - r_l - m) of the literature (Bradley & Terry 1952; centering with 0.01: Eisenstein et al.,
    arXiv 2312.09244). Averaged over the batch by weight. m is `margin`, or with `graded` the margin times a third of
    the label's strength (Llama 2, arXiv 2307.09288: 1, 2/3, 1/3).
Plackett-Luce, of a ranking r_1 > r_2 > ... > r_K:
    -sum_k log( exp r_k / sum_{j >= k} exp r_j ), divided by K - 1, averaged over the batch (Plackett 1975).
Learning rate 1e-4 is TRL's default. Not implemented: ensembles, GPUs in parallel.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterpo.labeling.calibration import accuracy, calibrate, policy_calibration
from iterpo.labeling.feedback import Pair, Ranking, check_preferences
from iterpo.labeling.reward_directory import check_absent, written_whole
from iterpo.labeling.reward_model import classifier, encode, load_tokenizer, score_in_float32
from iterpo.types import Completion, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class RewardTraining:
    epochs: int = 1
    batch_pairs: int = 8
    learning_rate: float = 1e-4
    """Peak; falls linearly to nothing over the training."""
    lora_rank: int = 16
    lora_alpha: int = 32
    margin: float = 0.0
    graded: bool = False
    """The margin follows the strength of the labels, a third of it a step."""
    centering: float = 0.0
    """eta of the centering term; published 0.01."""
    heldout_share: float = 0.1
    """Share of the groups kept from training; a group's pairs never stand on both sides."""
    max_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    step: int
    """Counts from 1."""
    steps: int
    loss: float


def train_reward_model(
    base_path: Path,
    pairs: Sequence[Pair],
    out_dir: Path,
    settings: RewardTraining | None = None,
    progress: Callable[[Step], None] = lambda _step: None,
    rankings: Sequence[Ranking] = (),
) -> dict[str, float]:
    """Write a PEFT adapter with its score head and tokenizer to `out_dir`, whole or not at all. With `rankings` it
    learns from them by Plackett-Luce, and the pairs are for measuring. Returns the metrics: `loss`, `train_pairs` or
    `train_rankings`, `heldout_pairs`, `heldout_accuracy_before`, `heldout_accuracy` (share of untied held-out pairs in
    the right order; absent without any), `temperature` (see `calibrate`), `seconds`.

    Raises Conflict when `out_dir` exists, InvalidInput without an untied pair.
    """
    settings = settings or RewardTraining()
    started = time.monotonic()
    check_absent(out_dir)
    train, heldout = split_by_group(pairs, settings.heldout_share, settings.seed)
    check_preferences(train)
    model, tokenizer = _trainable(base_path, settings)
    judged = [pair for pair in heldout if not pair.tied]
    first_wins = [pair.preference.p_first_wins > 0.5 for pair in judged]
    before = _margins(model, tokenizer, judged, settings)
    kept_out = {pair.preference.group_id for pair in heldout}
    ranked = [ranking for ranking in rankings if ranking.group_id not in kept_out]
    loss = _train(model, tokenizer, ranked or train, settings, progress)
    trained_on = {"train_rankings": float(len(ranked))} if ranked else {"train_pairs": float(len(train))}
    metrics = {"loss": loss, **trained_on, "heldout_pairs": float(len(heldout))}
    if judged:
        after = _margins(model, tokenizer, judged, settings)
        metrics["heldout_accuracy_before"] = accuracy(before, first_wins)
        metrics["heldout_accuracy"] = accuracy(after, first_wins)
        metrics["temperature"] = calibrate(after, first_wins)
    metrics |= policy_calibration(pairs)
    metrics["seconds"] = time.monotonic() - started
    with written_whole(out_dir, {"base": str(base_path), "training": asdict(settings), "metrics": metrics}) as partial:
        model.save_pretrained(str(partial), safe_serialization=True)
        tokenizer.save_pretrained(str(partial))
    return metrics


def bradley_terry_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    p_first: torch.Tensor,
    weight: torch.Tensor,
    settings: RewardTraining,
    strength: torch.Tensor | None = None,
) -> torch.Tensor:
    """All [pairs]; the weighted mean of the module's formula, a scalar. `strength` (0 to 3) is needed if `graded`."""
    import torch
    from torch.nn.functional import logsigmoid

    margin = settings.margin * strength / 3 if settings.graded and strength is not None else settings.margin
    difference = first - second - margin * torch.sign(p_first - 0.5)
    loss = -(p_first * logsigmoid(difference) + (1 - p_first) * logsigmoid(-difference))
    loss = loss + settings.centering * (first + second).square()
    return (weight * loss).sum() / weight.sum()


def plackett_luce_loss(ranked: torch.Tensor) -> torch.Tensor:
    """[K] rewards, the best first -> a scalar: minus the log-likelihood of the order, divided by K - 1."""
    later = ranked.flip(0).logcumsumexp(0).flip(0)
    return (later - ranked)[:-1].mean()


def split_by_group(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held-out) pairs; at least one group trains, and with two groups or more at least one is held out."""
    groups = sorted({pair.preference.group_id for pair in pairs})
    random.Random(seed).shuffle(groups)
    count = min(len(groups) - 1, max(1, round(share * len(groups)))) if share > 0 and len(groups) > 1 else 0
    kept_out = set(groups[:count])
    train = [pair for pair in pairs if pair.preference.group_id not in kept_out]
    return train, [pair for pair in pairs if pair.preference.group_id in kept_out]


def _trainable(base_path: Path, settings: RewardTraining) -> tuple[Any, Any]:
    """Frozen weights in the type that the hardware multiplies (cast once, not at every step), trained ones in
    float32."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    from iterpo.precision import compute_dtype

    torch.manual_seed(settings.seed)
    tokenizer = load_tokenizer(base_path)
    base, _ = classifier(base_path, compute_dtype("auto", "cuda" if torch.cuda.is_available() else "cpu"))
    base.config.pad_token_id = tokenizer.pad_token_id
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        modules_to_save=["score"],
    )
    model = get_peft_model(base, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    score_in_float32(model.base_model.model.score.modules_to_save["default"])
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _train(
    model: Any, tokenizer: Any, examples: list[Any], settings: RewardTraining, progress: Callable[[Step], None]
) -> float:
    """Mean loss of the last tenth of the steps. Examples are pairs, or all of them rankings."""
    import torch

    batches = _batches(examples, settings)
    steps = len(batches)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses: list[float] = []
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        loss = _batch_loss(model, tokenizer, batch, settings)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay.step()
        losses.append(loss.item())
        progress(Step(len(losses), steps, losses[-1]))
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _batches(examples: list[Any], settings: RewardTraining) -> list[list[Any]]:
    """Every epoch in a fresh order. A batch holds about as many completions, be they in pairs or in rankings."""
    draw = random.Random(settings.seed)
    width = max(len(e.completions) if isinstance(e, Ranking) else 2 for e in examples)
    size = max(1, 2 * settings.batch_pairs // width)
    batches: list[list[Any]] = []
    for _ in range(settings.epochs):
        order = draw.sample(examples, len(examples))
        batches += [order[i : i + size] for i in range(0, len(order), size)]
    return batches


def _batch_loss(model: Any, tokenizer: Any, batch: list[Any], settings: RewardTraining) -> torch.Tensor:
    import torch

    if isinstance(batch[0], Ranking):
        items = [(ranking.prompt, c) for ranking in batch for c in ranking.completions]
        rewards = _scores(model, tokenizer, items, settings).split([len(ranking.completions) for ranking in batch])
        return torch.stack([plackett_luce_loss(r) for r in rewards]).mean()
    first, second = _rewards(model, tokenizer, batch, settings)
    p_first = torch.tensor([pair.preference.p_first_wins for pair in batch], device=first.device)
    weight = torch.tensor([pair.preference.weight for pair in batch], device=first.device)
    strength = torch.tensor([pair.preference.strength for pair in batch], device=first.device)
    return bradley_terry_loss(first, second, p_first, weight, settings, strength)


def _rewards(
    model: Any, tokenizer: Any, pairs: list[Pair], settings: RewardTraining
) -> tuple[torch.Tensor, torch.Tensor]:
    """[pairs] each, of the first and of the second completions, in one forward pass."""
    items = [(pair.prompt, pair.first) for pair in pairs] + [(pair.prompt, pair.second) for pair in pairs]
    rewards = _scores(model, tokenizer, items, settings)
    return rewards[: len(pairs)], rewards[len(pairs) :]


def _scores(model: Any, tokenizer: Any, items: list[tuple[Prompt, Completion]], settings: RewardTraining) -> Any:
    """[items] rewards, float32; under autocast where the base is in bfloat16."""
    import torch

    batch = encode(tokenizer, items, settings.max_tokens).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.base_model.dtype is torch.bfloat16):
        return model(**batch).logits[:, 0].float()


def _margins(model: Any, tokenizer: Any, pairs: list[Pair], settings: RewardTraining) -> list[float]:
    """[pairs] reward of the first less that of the second."""
    import torch

    model.eval()
    margins: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), settings.batch_pairs):
            first, second = _rewards(model, tokenizer, pairs[start : start + settings.batch_pairs], settings)
            margins += (first - second).tolist()
    return margins
