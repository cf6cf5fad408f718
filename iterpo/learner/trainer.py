"""One iteration's update, for every algorithm alike.

Advantages and coefficients are computed over the whole batch before any minibatch or micro-batch is cut, so
accumulation, packing and splitting a pair across micro-batches cannot change the gradient (invariant 5).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iterpo.algorithms import Algorithm
from iterpo.gradient import TokenGradient, prepared, token_gradient
from iterpo.gradient_coefficient import Distributional, TokenBatch
from iterpo.learner.critic import Critic
from iterpo.learner.policy_model import Adapter, Pass, PolicyModel
from iterpo.learner.team import present
from iterpo.regularizers import ClippedValueLoss
from iterpo.response_sampling import Selection
from iterpo.run_config import RunConfig
from iterpo.types import Completion

State = tuple[Adapter, dict[str, Any], Adapter | None]
"""Adapter, optimiser, and the critic of methods that have one."""


class Trainer:
    """One model's optimiser, and what an algorithm does with it: `update` is an iteration."""

    def __init__(
        self,
        model: PolicyModel,
        algorithm: Algorithm,
        config: RunConfig,
        give_way: Callable[[], None] = lambda: None,
    ) -> None:
        """`give_way` is called between micro-batches: others may use the model there, if they leave it as it was."""
        self.model, self.algorithm, self.config, self._give_way = model, algorithm, config, give_way
        self.critic = Critic(model) if "values" in algorithm.gradient_coefficient.needs else None
        self.team = present()
        self.trained_on: tuple[Sequence[Completion], TokenBatch] | None = None
        """By the last update: all of it as it began, or its first step's part, where a method looks at distributions
        that are measured for each step."""
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
        """Train on a selection; returns what happened, as numbers for metrics and the gate. In a process group every
        rank must be given the same."""
        with self.model.shared_by(self.team):
            return self._update(selection)

    def _update(self, selection: Selection) -> dict[str, float]:
        started = time.monotonic()
        if self.algorithm.restart:
            self.restart()
        if "mismatched" in self.algorithm.gradient_coefficient.needs and not strangers(selection.completions):
            return {}  # one prompt alone: nothing can be mismatched, and nothing is learned
        single = self.algorithm.epochs == 1 and self.algorithm.minibatches == 1 and not selection.passes
        batch = self._measure(selection, known=not single)
        steps: list[dict[str, float]] = []
        first: tuple[Sequence[Completion], TokenBatch] | None = None
        for epoch in range(self.algorithm.epochs):
            members = selection.passes[min(epoch, len(selection.passes) - 1)] if selection.passes else None
            for part in split(selection.groups, self.algorithm.minibatches, members):
                # Nothing was updated before the first step: what was measured is what stands.
                numbers, stepped = self._step(selection.completions, part, batch, moved=bool(steps))
                first = first or ([selection.completions[i] for i in part], stepped)
                steps.append(numbers)
        batch = stepped if single else batch
        of_a_step = self.algorithm.gradient_coefficient.needs & {"reference_kl", "mismatched"}
        self.trained_on = first if of_a_step else (selection.completions, batch)
        means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        counts = {"completions": float(len(selection.completions)), "tokens": float(len(batch.old))}
        sampled = [t for c in selection.completions for t in c.logprobs]
        entropy = {"entropy": -sum(sampled) / len(sampled)} if sampled else {}  # its estimate from one draw a token
        seconds = {"learner_seconds": time.monotonic() - started}
        return means | _mismatch_numbers(batch) | entropy | counts | seconds

    def _measure(self, selection: Selection, known: bool) -> TokenBatch:
        """The selection with the log-probs and values that it has before the update. Not `known`: the policy's are not
        a number yet, since the one step's own pass will tell them."""
        completions = selection.completions
        reported = [t for c in completions for t in (c.logprobs or [math.nan] * len(c.token_ids))]
        unknown = torch.full((len(reported),), math.nan, dtype=self.model.number)
        reference = None
        if self.algorithm.needs_reference and self.algorithm.reference == "previous_iterate":
            reference = unknown  # the iteration starts at the frozen copy itself
        elif self.algorithm.needs_reference:
            with self.model.base():
                reference = self.model.logprobs(completions)
        values = self.critic.values(completions) if self.critic else None
        behaviour = torch.tensor(reported, dtype=self.model.number)
        paired = "pairs" in self.algorithm.gradient_coefficient.needs
        batch = token_batch(selection, unknown, behaviour, reference, values, self.config.max_tokens, paired)
        return self._told(batch, self.model.logprobs(completions)) if known else batch

    def _told(self, batch: TokenBatch, current: Tensor) -> TokenBatch:
        """The batch with these log-probs wherever it has none; prepared, if it lacked those from before the update."""
        names = ("logprobs", "old", "behaviour", "reference")
        known = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
        filled: dict[str, Any] = {name: torch.where(t.isnan(), current, t) for name, t in known.items()}
        told = replace(batch, **filled)
        return prepared(self.algorithm, told) if bool(batch.old.isnan().any()) else told

    def _step(
        self, completions: Sequence[Completion], part: list[int], whole: TokenBatch, moved: bool
    ) -> tuple[dict[str, float], TokenBatch]:
        """One optimiser step. `moved`: the weights changed since `whole` was measured. Also returns the part's batch
        with the log-probs that the step began with."""
        members = [completions[i] for i in part]
        batch = whole.part(part)
        if moved:
            batch = replace(batch, logprobs=torch.full_like(batch.old, math.nan))
        batch = self._with_distributions(batch, members, completions)
        found, batch = self._accumulate(members, batch)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters, self.config.max_grad_norm)
        numbers = {"grad_norm": float(norm), "objective": float(found.objective)} | found.metrics
        sound = norm.isfinite()
        if self.critic and batch.returns is not None and batch.values is not None:
            value_norm, value_loss = self._value_step(self.critic, members, batch.values, batch.returns)
            numbers |= {"value_grad_norm": float(value_norm), "value_loss": value_loss}
            sound = sound & value_norm.isfinite()
        if sound:
            self.optimizer.step()
        return numbers, batch

    def _accumulate(self, members: Sequence[Completion], batch: TokenBatch) -> tuple[TokenGradient, TokenBatch]:
        """The gradient of one step, over all ranks: by one forward and backward a micro-batch where coefficients can be
        told from what was passed through so far, else by a pass that measures, and then that."""
        if bool(batch.logprobs.isnan().any()):
            told = self._told_on_the_way(members, batch)
            if told is not None:
                return told
            batch = self._told(batch, self.model.logprobs(members))
        found = token_gradient(self.algorithm, batch)
        self.model.budget.within_memory(lambda: self._pass(members, lambda _: found))
        self.model.add_up_gradients(self.model.parameters)
        return found, batch

    def _told_on_the_way(
        self, members: Sequence[Completion], batch: TokenBatch
    ) -> tuple[TokenGradient, TokenBatch] | None:
        """What is not known yet is not a number, so a coefficient that looks at it is none either: then None. Whoever
        hides that (a comparison may) is found out at the end, when everything is known."""

        def share() -> tuple[Tensor, Tensor] | None:
            current, used = batch.logprobs.clone(), torch.zeros_like(batch.logprobs)

            def weigh(part: Pass) -> TokenGradient | None:
                current[part.tokens] = part.logprobs
                found = token_gradient(self.algorithm, self._told(batch, current))
                used[part.tokens] = found.gradient[part.tokens]
                return found if _is_known(found, part.tokens) else None

            return (current.nan_to_num(0.0), used) if self._pass(members, weigh) else None

        shared = self.model.budget.within_memory(share)
        if self.model.team.any(shared is None) or shared is None:
            return None
        self.model.team.add_up(shared)
        current, used = shared
        told = self._told(batch, current)
        found = token_gradient(self.algorithm, told)
        if not torch.allclose(used, found.gradient, rtol=1e-6, atol=0.0):
            return None
        self.model.add_up_gradients(self.model.parameters)
        return found, told

    def _pass(self, members: Sequence[Completion], weigh: Callable[[Pass], TokenGradient | None]) -> bool:
        """This rank's forwards and backwards; ends, with False, at the first that nothing can be told of."""
        self.optimizer.zero_grad(set_to_none=True)
        entropy = self.config.entropy / sum(len(c.token_ids) for c in members)
        distributional = isinstance(self.algorithm.gradient_coefficient, Distributional)
        for part in self.model.passes(members, entropy > 0, distributional):
            found = weigh(part)
            if found is None:
                return False
            kl = None if found.reference_kl is None else found.reference_kl[part.tokens]
            part.backward(found.gradient[part.tokens], kl, entropy)
            self._give_way()
        return True

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

    def state(self) -> State:
        """As it stands: the optimiser's part is its own, and changes with the next step."""
        return self.model.adapter(), self.optimizer.state_dict(), self.critic.weights() if self.critic else None

    def restore(self, state: State) -> None:
        """Takes copies: the state may be given back once more."""
        adapter, optimizer, critic = state
        self.model.load_adapter(adapter)
        self.optimizer.load_state_dict(copy.deepcopy(optimizer))
        if critic is not None and self.critic is not None:
            self.critic.load_weights(critic)


def _is_known(found: TokenGradient, tokens: Tensor) -> bool:
    numbers = [t[tokens] for t in (found.gradient, found.reference_kl) if t is not None]
    return not any(bool(t.isnan().any()) for t in numbers)


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
