"""Weights instead of gradients are clipped: CISPO. A smooth gate instead of a clip: SAPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.policy_gradient import PolicyGradient, token_ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cispo(PolicyGradient):
    """c = A sg(clip(rho, floor, cap)): never zero, however far the policy has moved (arXiv:2506.13585).

    Two published variants share the name: an absolute cap of 5 without a floor (ScaleRL, TRL: these defaults), and
    clip(rho, 1 - 0.2, 1 + 0.2) (verl: row `cispo_verl`).
    """

    name: ClassVar[str] = "cispo"
    formula: ClassVar[str] = "c_t = A clip(rho_t, floor, cap)"

    floor: float = 0.0
    cap: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor < self.cap:
            raise InvalidConfig(f"Out of range: {self}.", "Use 0 <= floor < cap.")

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return advantage * token_ratio(batch).clamp(self.floor, self.cap)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return self.weigh(batch, advantage).detach() * batch.logprobs


@dataclass(frozen=True)
class Sapo(PolicyGradient):
    """c = A rho 4 s(z)(1 - s(z)), z = tau (rho - 1): the slope of the gate 4 s(z) / tau (METHODS section 3).

    One at rho = 1 and falling on both sides; tau is 1 for positive and 1.05 for negative advantages.
    """

    name: ClassVar[str] = "sapo"
    formula: ClassVar[str] = "c_t = A rho_t 4 s(z)(1 - s(z)), z = tau (rho_t - 1)"

    tau_positive: float = 1.0
    tau_negative: float = 1.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau_positive <= 0 or self.tau_negative <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use tau_positive > 0 and tau_negative > 0.")

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = token_ratio(batch)
        gate = (self._tau(advantage) * (ratio - 1)).sigmoid()
        return advantage * ratio * 4 * gate * (1 - gate)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        tau = self._tau(advantage)
        return advantage * 4 * (tau * (token_ratio(batch) - 1)).sigmoid() / tau

    def _tau(self, advantage: Tensor) -> Tensor:
        return advantage.new_full(advantage.shape, self.tau_positive).where(advantage > 0, self.tau_negative)
