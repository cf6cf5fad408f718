"""Kahneman-Tversky optimisation: answers that are good or bad by themselves, without a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Kto:
    """Desirable: lambda_D (1 - s(beta (D - z0))); undesirable: lambda_U (1 - s(beta (z0 - D))) (arXiv:2402.01306).

    c = lambda_D beta s(u) s(-u), u = beta (D - z0), and -lambda_U beta s(v) s(-v), v = -u. z0 = max(0, mean of D over
    mismatched answers: answers to other prompts), detached. Keep lambda_D n_D / (lambda_U n_U) within [1, 4/3].
    z0 is over the whole step's batch, whatever micro-batches and ranks it is cut into.
    """

    name: ClassVar[str] = "kto"
    formula: ClassVar[str] = "c = lam_D beta s(u)s(-u) | -lam_U beta s(u)s(-u), u = beta (D - z0)"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = frozenset({"completions", "roles", "reference", "mismatched"})
    needs_a_group = False

    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.desirable <= 0 or self.undesirable <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0, desirable > 0 and undesirable > 0.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        u = self._distance(batch)
        return batch.spread(self._signed(batch) * self.beta * u.sigmoid() * (-u).sigmoid())

    def objective(self, batch: TokenBatch) -> Tensor:
        u, role = self._distance(batch), self._role(batch)
        loss = self._signed(batch).abs() * (1 - (role * u).sigmoid())
        return batch.spread(-loss / batch.lengths.clamp(min=1))

    def z0(self, batch: TokenBatch) -> Tensor:
        """[] the reference point, nats."""
        if batch.mismatched is None or not len(batch.mismatched):
            raise InvalidInput(
                "KTO needs answers to other prompts, to know where indifference lies.",
                "Give the log-ratios of mismatched answers (in a batch: sequences whose role is null).",
                "MISMATCHED_MISSING",
            )
        return batch.mismatched.mean().clamp(min=0)

    def _distance(self, batch: TokenBatch) -> Tensor:
        """[S] u."""
        return self.beta * (batch.sequence_sum(batch.log_ratio) - self.z0(batch).detach())

    def _role(self, batch: TokenBatch) -> Tensor:
        if batch.role is None:
            raise InvalidInput("KTO needs to know which answers are good and which bad.", "Use a sampling with roles.")
        return batch.role.to(batch.logprobs.dtype)

    def _signed(self, batch: TokenBatch) -> Tensor:
        """[S] lambda_D, -lambda_U, or 0 for an answer that is neither."""
        role = self._role(batch)
        return self.desirable * role.clamp(min=0) + self.undesirable * role.clamp(max=0)

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        role, log_ratio = self._role(batch), batch.sequence_sum(batch.log_ratio)
        right = (role * (log_ratio - self.z0(batch)) > 0)[role != 0]
        return {"z0": float(self.z0(batch)), "accuracy": float(right.double().mean())}
