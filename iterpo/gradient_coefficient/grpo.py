"""Group-relative policy optimisation and the members of its family that differ in a hyper-parameter only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.advantage import ADVANTAGES, overlong_penalty
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grpo:
    """c = A rho 1[not clipped] + beta (ref/pi - 1): clipped surrogate plus the k3 KL of the loss (METHODS section 3).

    GRPO arXiv:2402.03300: standardised advantage, clip 0.2 on both sides, beta 0.04.
    Dr. GRPO arXiv:2503.20783: centred advantage, beta 0 (and a constant normaliser).
    DAPO arXiv:2503.14476: clip 0.2 / 0.28, beta 0, overlong shaping (and a per-token normaliser).
    Not implemented here: PPO's dual clip, KL in the reward.
    """

    name: ClassVar[str] = "grpo"
    needs: ClassVar[frozenset[str]] = frozenset({"completions", "rewards"})

    advantage: str = "standardised"
    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    """Weight of the k3 KL. As a loss on on-policy samples k3 pulls along grad KL(ref; pi) (METHODS, KL)."""
    overlong_fraction: float = 0.0
    """DAPO's C / L; zero switches the shaping off."""

    def __post_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise InvalidConfig(f"Unknown advantage {self.advantage!r}.", f"Use one of {', '.join(ADVANTAGES)}.")
        if not 0 < self.clip_low < 1 or self.clip_high <= 0 or self.beta < 0 or not 0 <= self.overlong_fraction < 1:
            raise InvalidConfig(
                f"Out of range: {self}.", "Use 0 < clip_low < 1, clip_high > 0, beta >= 0, 0 <= overlong_fraction < 1."
            )

    def __call__(self, batch: TokenBatch) -> Tensor:
        reward = batch.reward
        if self.overlong_fraction:
            reward = reward + overlong_penalty(batch.lengths, batch.max_tokens, self.overlong_fraction)
        advantage = batch.spread(ADVANTAGES[self.advantage](batch, reward))
        ratio = (batch.logprobs - batch.old).exp()
        coefficient = advantage * ratio * ~self.clipped(ratio, advantage)
        if self.beta and batch.reference is not None:
            coefficient = coefficient + self.beta * ((batch.reference - batch.logprobs).exp() - 1)
        return coefficient

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        """[B] bool: tokens whose clipped surrogate is the smaller one, so that their gradient vanishes."""
        return ((advantage > 0) & (ratio > 1 + self.clip_high)) | ((advantage < 0) & (ratio < 1 - self.clip_low))
