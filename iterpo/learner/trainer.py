"""One iteration's update, for every algorithm alike.

Advantages and coefficients are computed over the whole batch before any minibatch or micro-batch is cut, so
accumulation, packing and splitting a pair across micro-batches cannot change the gradient (invariant 5).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iterpo.algorithms import Algorithm
from iterpo.gradient import prepared, token_gradient
from iterpo.gradient_coefficient import TokenBatch
from iterpo.learner.critic import Critic
from iterpo.learner.policy_model import Forward, PolicyModel
from iterpo.regularizers import ClippedValueLoss
from iterpo.response_sampling import Selection
from iterpo.run_config import RunConfig
from iterpo.types import Completion


class Trainer:
    def __init__(self, model: PolicyModel, algorithm: Algorithm, config: RunConfig) -> None:
        self.model, self.algorithm, self.config = model, algorithm, config
        self.critic = Critic(model) if "values" in algorithm.gradient_coefficient.needs else None
        self._fresh = model.adapter()
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.AdamW:
        groups = [{"params": self.model.parameters, "lr": self.algorithm.learning_rate}]
        if self.critic:
            groups.append({"params": self.critic.parameters, "lr": self.algorithm.critic_learning_rate})
        return torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)

    def restart(self) -> None:
        """From the base once more: a fresh adapter and fresh moments (STaR)."""
        self.model.load_adapter(self._fresh)
        self.optimizer = self._optimizer()

    def update(self, selection: Selection) -> dict[str, float]:
        """Train on a selection; returns what happened, as numbers for metrics and the gate."""
        started = time.monotonic()
        if self.algorithm.restart:
            self.restart()
        if "mismatched" in self.algorithm.gradient_coefficient.needs and not strangers(selection.completions):
            return {}  # one prompt alone: nothing can be mismatched, and nothing is learned
        forward = self._forward(selection)
        whole = prepared(self.algorithm, self._measure(selection, forward))
        steps = []
        for epoch in range(self.algorithm.epochs):
            members = selection.passes[min(epoch, len(selection.passes) - 1)] if selection.passes else None
            for number, part in enumerate(split(selection.groups, self.algorithm.minibatches, members)):
                first = epoch == 0 and number == 0
                steps.append(self._step(selection.completions, part, whole, first, forward if first else None))
        means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        tokens = float(len(whole.old))
        return means | _mismatch_numbers(whole) | {"tokens": tokens, "learner_seconds": time.monotonic() - started}

    def _forward(self, selection: Selection) -> Forward | None:
        """Where the first step takes the whole selection in one micro-batch, the pass that measures it is the one that
        is differentiated. A critic's adapter is switched on in between, so not beside one."""
        if self.algorithm.minibatches > 1 or selection.passes or self.critic:
            return None
        return self.model.forward(selection.completions)

    def _measure(self, selection: Selection, forward: Forward | None = None) -> TokenBatch:
        """The selection with the log-probs and values that it has before the update."""
        completions = selection.completions
        old = self.model.logprobs(completions, forward)
        reported = [t for c in completions for t in (c.logprobs or [float("nan")] * len(c.token_ids))]
        behaviour = torch.tensor(reported, dtype=old.dtype)
        reference = None
        if self.algorithm.needs_reference and self.algorithm.reference == "previous_iterate":
            reference = old  # the iteration starts at the frozen copy itself
        elif self.algorithm.needs_reference:
            with self.model.base():
                reference = self.model.logprobs(completions)
        values = self.critic.values(completions) if self.critic else None
        behaviour = torch.where(behaviour.isnan(), old, behaviour)
        paired = "pairs" in self.algorithm.gradient_coefficient.needs
        return token_batch(selection, old, behaviour, reference, values, self.config.max_tokens, paired)

    def _step(
        self,
        completions: Sequence[Completion],
        part: list[int],
        whole: TokenBatch,
        fresh: bool,
        forward: Forward | None = None,
    ) -> dict[str, float]:
        """One optimiser step. `fresh`: nothing was updated since `whole` was measured, so its log-probs are current.
        `forward`: of exactly these members."""
        members = [completions[i] for i in part]
        batch = whole.part(part)
        if not fresh:
            batch = replace(batch, logprobs=self.model.logprobs(members))
        batch = self._with_distributions(batch, members, completions)
        found = token_gradient(self.algorithm, batch)
        self.optimizer.zero_grad(set_to_none=True)
        entropy = self.config.entropy / len(batch.logprobs)
        self.model.backward(members, found.gradient, found.reference_kl, entropy, forward)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters, self.config.max_grad_norm)
        numbers = {"grad_norm": float(norm), "objective": float(found.objective)} | found.metrics
        sound = norm.isfinite()
        if self.critic and batch.returns is not None and batch.values is not None:
            value_norm, value_loss = self._value_step(self.critic, members, batch.values, batch.returns)
            numbers |= {"value_grad_norm": float(value_norm), "value_loss": value_loss}
            sound = sound & value_norm.isfinite()
        if sound:
            self.optimizer.step()
        return numbers

    def _value_step(
        self, critic: Critic, members: Sequence[Completion], old: Tensor, returns: Tensor
    ) -> tuple[Tensor, float]:
        """The critic's gradient, ready for the optimiser; returns its norm before clipping, and the loss."""
        loss = next(r for r in self.algorithm.regularizers if isinstance(r, ClippedValueLoss))
        values = critic.values(members)
        critic.backward(members, loss.gradient(values, old, returns))
        norm = torch.nn.utils.clip_grad_norm_(critic.parameters, self.config.max_grad_norm)
        return norm, float(loss.loss(values, old, returns))

    def _with_distributions(
        self, batch: TokenBatch, members: Sequence[Completion], everyone: Sequence[Completion]
    ) -> TokenBatch:
        """What a method needs that must be measured anew at every step."""
        needs = self.algorithm.gradient_coefficient.needs
        if "reference_kl" in needs:
            batch = replace(batch, reference_kl=self.model.reference_kl(members))
        if "mismatched" in needs:
            others = strangers(members, everyone)
            current = self.model.logprobs(others)
            with self.model.base():
                reference = self.model.logprobs(others)
            lengths = [len(c.token_ids) for c in others]
            batch = replace(batch, mismatched=torch.stack([p.sum() for p in (current - reference).split(lengths)]))
        return batch

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def split(groups: Sequence[int], minibatches: int, members: Sequence[int] | None = None) -> list[list[int]]:
    """Indices of sequences (of all, or of `members`) in minibatches that keep groups, and so pairs, whole; fewer when
    there are fewer groups."""
    chosen = range(len(groups)) if members is None else members
    names = sorted({groups[i] for i in chosen})
    count = max(1, min(minibatches, len(names)))
    number = {name: k % count for k, name in enumerate(names)}
    return [[i for i in chosen if number[groups[i]] == k] for k in range(count)]


def strangers(members: Sequence[Completion], everyone: Sequence[Completion] = ()) -> list[Completion]:
    """Every member's answer under another prompt of `everyone` (default: of the members), the next one in order: KTO's
    mismatched pairs. Empty when there is only one prompt."""
    prompts = list(dict.fromkeys(c.prompt_token_ids for c in (everyone or members)))
    if len(prompts) < 2:
        return []
    following = dict(zip(prompts, [*prompts[1:], prompts[0]], strict=True))
    return [replace(c, prompt_token_ids=following[c.prompt_token_ids]) for c in members]


def token_batch(
    selection: Selection,
    old: Tensor,
    behaviour: Tensor,
    reference: Tensor | None,
    values: Tensor | None,
    max_tokens: int,
    paired: bool,
) -> TokenBatch:
    """Everything a coefficient may look at, for a whole selection. Pairs are for methods that learn from pairs
    (`paired`): others average over answers, whatever sampler drew them."""
    lengths = torch.tensor([len(c.token_ids) for c in selection.completions])
    pairs = selection.pairs if paired else []
    weight = [p.weight for p in pairs] if pairs else [1.0] * len(lengths)
    return TokenBatch(
        logprobs=old,
        old=old,
        behaviour=behaviour,
        reference=reference,
        sequence=torch.arange(len(lengths)).repeat_interleave(lengths),
        lengths=lengths,
        group=torch.tensor(selection.groups),
        reward=torch.tensor(selection.rewards, dtype=old.dtype),
        chosen=torch.tensor([p.chosen for p in pairs], dtype=torch.int64),
        rejected=torch.tensor([p.rejected for p in pairs], dtype=torch.int64),
        p_chosen=torch.tensor([p.p_chosen for p in pairs], dtype=old.dtype),
        weight=torch.tensor(weight, dtype=old.dtype),
        max_tokens=max_tokens,
        role=torch.tensor(selection.roles),
        strength=torch.tensor([p.strength for p in pairs], dtype=old.dtype),
        truncated=torch.tensor([c.truncated for c in selection.completions]),
        from_reference=torch.tensor(selection.from_reference),
        baseline=torch.tensor(selection.baselines, dtype=old.dtype),
        values=values,
    )


def _mismatch_numbers(batch: TokenBatch) -> dict[str, float]:
    """Quantiles of the trainer/sampler ratio and its share outside [0.9, 1.1] (invariant 7; floor: FIELD, 7.5 %)."""
    w = (batch.old - batch.behaviour).exp().double()
    outside = ((w < 0.9) | (w > 1.1)).double().mean()
    low, middle, high = w.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=w.dtype)).tolist()
    return {
        "mismatch_p05": low,
        "mismatch_p50": middle,
        "mismatch_p95": high,
        "mismatch_outside": float(outside),
    }
