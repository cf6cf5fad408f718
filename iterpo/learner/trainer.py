"""One iteration's update, for every algorithm alike.

Coefficients are computed over the whole optimiser batch before any micro-batch is cut, so accumulation, packing and
splitting a pair across micro-batches cannot change the gradient (invariant 5).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iterpo.algorithms import Algorithm
from iterpo.gradient_coefficient import MISMATCH, TokenBatch
from iterpo.learner.policy_model import Adapter, PolicyModel
from iterpo.response_sampling import Selection
from iterpo.run_config import RunConfig


@dataclass(frozen=True)
class Measured:
    """Log-probs of a whole selection, measured once at the start of the iteration. All [B], nats."""

    old: Tensor
    behaviour: Tensor
    reference: Tensor | None


class Trainer:
    def __init__(self, model: PolicyModel, algorithm: Algorithm, config: RunConfig) -> None:
        self.model, self.algorithm, self.config = model, algorithm, config
        self.optimizer = torch.optim.AdamW(
            model.parameters, lr=algorithm.learning_rate, weight_decay=config.weight_decay
        )

    def update(self, selection: Selection) -> dict[str, float]:
        """Train on a selection; returns what happened, as numbers for metrics and the gate."""
        started = time.monotonic()
        measured = self._measure(selection, self.model.adapter())
        steps = []
        for epoch in range(self.algorithm.epochs):
            for number, part in enumerate(split(selection, self.algorithm.minibatches)):
                first = epoch == 0 and number == 0
                steps.append(self._step(selection, part, measured, fresh=first))
        means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        tokens = float(len(measured.old))
        return means | _mismatch_numbers(measured) | {"tokens": tokens, "learner_seconds": time.monotonic() - started}

    def _measure(self, selection: Selection, previous: Adapter) -> Measured:
        old = self.model.logprobs(selection.completions)
        reported = [t for c in selection.completions for t in (c.logprobs or [float("nan")] * len(c.token_ids))]
        behaviour = torch.tensor(reported, dtype=old.dtype)
        reference = None
        if self.algorithm.reference == "previous_iterate":
            reference = old  # the iteration starts at the frozen copy itself
        elif self.algorithm.reference == "base" and self._uses_reference():
            with self.model.base():
                reference = self.model.logprobs(selection.completions)
        return Measured(old, torch.where(behaviour.isnan(), old, behaviour), reference)

    def _uses_reference(self) -> bool:
        coefficient = self.algorithm.gradient_coefficient
        return "reference" in coefficient.needs or bool(getattr(coefficient, "beta", 0))

    def _step(self, selection: Selection, part: Part, measured: Measured, fresh: bool) -> dict[str, float]:
        """One optimiser step. `fresh`: nothing was updated since `measured`, so the current log-probs are the old."""
        completions = [selection.completions[i] for i in part.sequences]
        current = measured.old[part.tokens] if fresh else self.model.logprobs(completions)
        batch = token_batch(selection, part, current, measured, self.config.max_tokens)
        correction = MISMATCH[self.config.mismatch](batch) if self._corrects() else 1.0
        coefficient = self.algorithm.gradient_coefficient(batch) * correction
        self.optimizer.zero_grad(set_to_none=True)
        self.model.backward(completions, coefficient * self.algorithm.normalizer(batch))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters, self.config.max_grad_norm)
        if norm.isfinite():
            self.optimizer.step()
        return {"grad_norm": float(norm), "zero_coefficients": float((coefficient == 0).float().mean())}

    def _corrects(self) -> bool:
        """Only policy gradients are expectations under the sampler; likelihoods of given answers are not."""
        return "rewards" in self.algorithm.gradient_coefficient.needs

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


@dataclass(frozen=True)
class Part:
    """One minibatch: indices of sequences, of their tokens [B'], and of pairs."""

    sequences: list[int]
    tokens: Tensor
    pairs: list[int]


def split(selection: Selection, minibatches: int) -> list[Part]:
    """Minibatches that keep groups and pairs whole; fewer when there are fewer groups."""
    groups = sorted(set(selection.groups))
    count = max(1, min(minibatches, len(groups)))
    lengths = torch.tensor([len(c.token_ids) for c in selection.completions])
    ends = lengths.cumsum(0)
    parts = []
    for k in range(count):
        members = set(groups[k::count])
        chosen = [i for i, g in enumerate(selection.groups) if g in members]
        tokens = torch.cat([torch.arange(int(ends[i] - lengths[i]), int(ends[i])) for i in chosen])
        pairs = [n for n, p in enumerate(selection.pairs) if selection.groups[p.chosen] in members]
        parts.append(Part(chosen, tokens, pairs))
    return parts


def token_batch(selection: Selection, part: Part, current: Tensor, measured: Measured, max_tokens: int) -> TokenBatch:
    """Everything a coefficient may look at, for the sequences of one minibatch."""
    position = {index: place for place, index in enumerate(part.sequences)}
    lengths = torch.tensor([len(selection.completions[i].token_ids) for i in part.sequences])
    pairs = [selection.pairs[n] for n in part.pairs]
    weight = [p.weight for p in pairs] if pairs else [1.0] * len(part.sequences)
    return TokenBatch(
        logprobs=current,
        old=measured.old[part.tokens],
        behaviour=measured.behaviour[part.tokens],
        reference=None if measured.reference is None else measured.reference[part.tokens],
        sequence=torch.arange(len(lengths)).repeat_interleave(lengths),
        lengths=lengths,
        group=torch.tensor([selection.groups[i] for i in part.sequences]),
        reward=torch.tensor([selection.rewards[i] for i in part.sequences], dtype=current.dtype),
        chosen=torch.tensor([position[p.chosen] for p in pairs], dtype=torch.int64),
        rejected=torch.tensor([position[p.rejected] for p in pairs], dtype=torch.int64),
        p_chosen=torch.tensor([p.p_chosen for p in pairs], dtype=current.dtype),
        weight=torch.tensor(weight, dtype=current.dtype),
        max_tokens=max_tokens,
    )


def _mismatch_numbers(measured: Measured) -> dict[str, float]:
    """Quantiles of the trainer/sampler ratio and its share outside [0.9, 1.1] (invariant 7; floor: FIELD, 7.5 %)."""
    w = (measured.old - measured.behaviour).exp().double()
    outside = ((w < 0.9) | (w > 1.1)).double().mean()
    low, middle, high = w.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=w.dtype)).tolist()
    return {
        "mismatch_p05": low,
        "mismatch_p50": middle,
        "mismatch_p95": high,
        "mismatch_outside": float(outside),
    }
