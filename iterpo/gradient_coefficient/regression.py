"""Policy gradients that are regressions: Kimi k1.5's mirror descent, A*-PO, contrastive trajectory balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.gradient_coefficient.advantage import group_mean
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mirror:
    """c = (r - mean r) - tau log(pi/pi_i)(y), pi_i the policy as the iteration began (arXiv:2501.12599, METHODS).

    Off-policy inside an iteration by design. tau log Z is replaced by the group's mean reward, as the report does.
    Not implemented: the report's length reward (shape rewards in the labeler). No published tau was found: 0.1.
    """

    name: ClassVar[str] = "mirror"
    formula: ClassVar[str] = "c_t = (r - mean r) - tau log(pi/pi_i)(y)"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = frozenset({"completions", "rewards"})
    needs_a_group = True

    tau: float = 0.1

    def __post_init__(self) -> None:
        if self.tau < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use tau >= 0.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        moved = batch.sequence_sum(batch.logprobs - batch.old)
        return batch.spread(batch.reward - group_mean(batch, batch.reward) - self.tau * moved)

    def objective(self, batch: TokenBatch) -> Tensor:
        moved = batch.sequence_sum(batch.logprobs - batch.old)
        centre = batch.reward - group_mean(batch, batch.reward)
        whole = centre * batch.sequence_sum(batch.logprobs) - self.tau / 2 * moved.square()
        return batch.spread(whole / batch.lengths)

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        return {"moved_abs_mean": float(batch.sequence_sum(batch.logprobs - batch.old).abs().mean())}


@dataclass(frozen=True)
class AStarPo:
    """c = 2 beta2 ((r - V*) - beta2 log(pi/ref)(y)), the gradient of -(beta2 log(pi/ref) - (r - V*))^2 (METHODS).

    V* = beta1 log mean exp(r / beta1) over answers of the reference policy is measured by the response sampler.
    """

    name: ClassVar[str] = "a_star_po"
    formula: ClassVar[str] = "c_t = 2 beta2 ((r - V*) - beta2 log(pi/ref)(y))"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = frozenset({"completions", "rewards", "reference", "baseline"})
    needs_a_group = False

    beta2: float = 1e-3

    def __post_init__(self) -> None:
        if self.beta2 <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta2 > 0.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.spread(-2 * self.beta2 * self._error(batch))

    def objective(self, batch: TokenBatch) -> Tensor:
        return batch.spread(-self._error(batch).square() / batch.lengths)

    def _error(self, batch: TokenBatch) -> Tensor:
        if batch.baseline is None:
            raise InvalidInput("A*-PO needs V*.", "Use the response sampling `reference_baseline`.")
        return self.beta2 * batch.sequence_sum(batch.log_ratio) - (batch.reward - batch.baseline)

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        return {"regression_error": float(self._error(batch).square().mean())}


@dataclass(frozen=True)
class Balance:
    """Contrastive trajectory balance: e = [log pi(y1) - log R(y1)] - [log pi(y2) - log R(y2)], L = e^2; c_1 = -2e,
    c_2 = +2e (arXiv:2605.00553; form inferred in METHODS: log Z cancels between two answers to one prompt).

    log R is the reward divided by `temperature`. Not implemented: noisy-gradient pruning, Min-K fluency.
    """

    name: ClassVar[str] = "balance"
    formula: ClassVar[str] = "c_1 = -2e, c_2 = +2e, e = [log pi - log R](y1) - [log pi - log R](y2)"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = frozenset({"completions", "pairs", "rewards"})
    needs_a_group = False

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use temperature > 0.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        e = 2 * batch.weight * self._error(batch)
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        return batch.spread(flat.index_add(0, batch.chosen, -e).index_add(0, batch.rejected, e))

    def objective(self, batch: TokenBatch) -> Tensor:
        half = -batch.weight * self._error(batch).square() / 2
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        whole = flat.index_add(0, batch.chosen, half).index_add(0, batch.rejected, half)
        return batch.spread(whole / batch.lengths)

    def _error(self, batch: TokenBatch) -> Tensor:
        """[N] e."""
        free = batch.sequence_sum(batch.logprobs) - batch.reward / self.temperature
        return free[batch.chosen] - free[batch.rejected]

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        return {"balance_error": float(self._error(batch).square().mean())}
