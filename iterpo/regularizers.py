"""What does not fit one number a sampled token, by name and beside the three axes: never smuggled into one of them.

`clipped_value_loss`  the critic's own loss (PPO): one number a token again, for the critic's backward
`reference_kl`        the gradient through KL(reference; current) over the whole vocabulary (TDPO); its weights come
                      from the coefficient (`Tdpo.kl_weights`)
`entropy`             an exact entropy bonus, any method (`[run] entropy`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from iterpo.errors import InvalidConfig

if TYPE_CHECKING:
    from torch import Tensor


class Regularizer(Protocol):
    name: ClassVar[str]


@dataclass(frozen=True)
class ClippedValueLoss:
    """weight * 1/2 max((V - R)^2, (clip(V, V_old +- clip) - R)^2), mean over the batch's tokens (METHODS, PPO: weight
    0.1 and clip 0.2 are TRL's)."""

    name: ClassVar[str] = "clipped_value_loss"

    weight: float = 0.1
    clip: float = 0.2

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.clip <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use weight > 0 and clip > 0.")

    def loss(self, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        """[]; all [B]."""
        near = old + (values - old).clamp(-self.clip, self.clip)
        worst = (values - returns).square().maximum((near - returns).square())
        return self.weight / 2 * worst.mean()

    def gradient(self, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        """[B] derivative of the loss by each value. Where the clipped branch is the larger one, its derivative is that
        of V inside the clip range and zero beyond it."""
        moved = values - old
        near = old + moved.clamp(-self.clip, self.clip)
        plain, clipped = values - returns, near - returns
        inside = (moved.abs() <= self.clip).to(values.dtype)
        slope = plain.where(plain.square() >= clipped.square(), clipped * inside)
        return self.weight * slope / max(1, len(values))


@dataclass(frozen=True)
class ReferenceKl:
    name: ClassVar[str] = "reference_kl"
