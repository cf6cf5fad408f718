"""The part that all policy gradients share: reward shaping, then an advantage, then a trust region's own weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.advantage import ADVANTAGES, NEED_A_GROUP, overlong_penalty
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PolicyGradient:
    """c_t = w_t A_t; subclasses say what w is (`weigh`) and which surrogate has that gradient (`surrogate`)."""

    normalizers: ClassVar[frozenset[str]] = frozenset()

    advantage: str = "standardised"
    overlong_fraction: float = 0.0
    """DAPO's C / L: the last part of the token limit in which the reward falls by up to 1. Zero, or an unknown limit,
    switches the shaping off."""

    def __post_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise InvalidConfig(f"Unknown advantage {self.advantage!r}.", f"Use one of {', '.join(ADVANTAGES)}.")
        if not 0 <= self.overlong_fraction < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use 0 <= overlong_fraction < 1.")

    @property
    def needs(self) -> frozenset[str]:
        extra = {"baseline"} if self.advantage == "over_baseline" else set()
        return frozenset({"completions", "rewards"} | extra)

    @property
    def needs_a_group(self) -> bool:
        return self.advantage in NEED_A_GROUP

    def shaped(self, batch: TokenBatch) -> Tensor:
        """[S] rewards after DAPO's overlong punishment."""
        if not self.overlong_fraction or batch.max_tokens is None:
            return batch.reward
        lengths = batch.lengths.to(batch.reward.dtype)
        return batch.reward + overlong_penalty(lengths, batch.max_tokens, self.overlong_fraction)

    def advantages(self, batch: TokenBatch) -> Tensor:
        """[B]; taken from the batch when they were computed over a larger one."""
        if batch.advantage is not None:
            return batch.advantage
        return ADVANTAGES[self.advantage](batch, self.shaped(batch))

    def __call__(self, batch: TokenBatch) -> Tensor:
        return self.weigh(batch, self.advantages(batch))

    def objective(self, batch: TokenBatch) -> Tensor:
        return self.surrogate(batch, self.advantages(batch))

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        advantage = self.advantages(batch)
        return {
            "advantage_mean": float(advantage.mean()),
            "advantage_abs_mean": float(advantage.abs().mean()),
            "ratio_mean": float(token_ratio(batch).mean()),
            "clip_fraction": float(((self.weigh(batch, advantage) == 0) & (advantage != 0)).double().mean()),
        }

    def terms(self, batch: TokenBatch) -> dict[str, Tensor]:
        return {"advantage": self.advantages(batch), "ratio": token_ratio(batch)}

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        """[B] the coefficient."""
        raise NotImplementedError

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        """[B] the objective."""
        raise NotImplementedError


def token_ratio(batch: TokenBatch) -> Tensor:
    """[B] rho_t = pi / pi_old."""
    return (batch.logprobs - batch.old).exp()


def outside(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """bool: where the clipped surrogate is the smaller one, so that its gradient vanishes; bounds on the ratio."""
    return ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
