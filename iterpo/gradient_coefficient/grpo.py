"""The clipped surrogate, token by token: GRPO and the members of its family that differ in a hyper-parameter only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.policy_gradient import PolicyGradient, outside, token_ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grpo(PolicyGradient):
    """c = A rho 1[not clipped]: the gradient of min(rho A, clip(rho, 1 - low, 1 + high) A) (METHODS section 3).

    GRPO arXiv:2402.03300: standardised advantage, clip 0.2 on both sides, beside a k3 KL with beta 0.04.
    Dr. GRPO arXiv:2503.20783: centred advantage, no KL (and a constant normaliser).
    DAPO arXiv:2503.14476: clip 0.2 / 0.28, no KL, overlong shaping (and a per-token normaliser).
    REINFORCE++ arXiv:2501.03262: advantages whitened over the batch.
    """

    name: ClassVar[str] = "grpo"
    formula: ClassVar[str] = "c_t = A rho_t 1[not clipped]; with dual clip c_d also 0 where A < 0 and rho_t > c_d"

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    """c_d of arXiv:1912.09729: for A < 0 the loss is at most -c_d A. Zero switches it off; 3 is usual."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0 or (self.dual_clip and self.dual_clip <= 1):
            raise InvalidConfig(
                f"Out of range: {self}.", "Use 0 < clip_low <= 1, clip_high > 0, dual_clip > 1 (or 0 for none)."
            )

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = token_ratio(batch)
        return advantage * ratio * ~self.clipped(ratio, advantage)

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        """[B] bool: tokens whose gradient vanishes."""
        clipped = outside(ratio, advantage, 1 - self.clip_low, 1 + self.clip_high)
        return clipped | ((advantage < 0) & (ratio > self.dual_clip)) if self.dual_clip else clipped

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = token_ratio(batch)
        least = (advantage * ratio).minimum(advantage * ratio.clamp(1 - self.clip_low, 1 + self.clip_high))
        if not self.dual_clip:
            return least
        return least.where(advantage >= 0, least.maximum(self.dual_clip * advantage))
