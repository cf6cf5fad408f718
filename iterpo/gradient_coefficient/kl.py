"""KL to the reference, by sample: which estimator, how strong, and where it stands (METHODS, KL).

With x = log pi - log ref at a sampled token: k1 = x, k2 = x^2/2, k3 = exp(-x) - 1 + x; k1 and k3 are unbiased values.
In the coefficient what counts is the gradient: k1's is zero on average, k2's and ratio-weighted k3's are those of
KL(pi; ref), k3's is that of KL(ref; pi). So k1 belongs into the reward, the others into the coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

ESTIMATORS = ("k1", "k2", "k3", "ratio_k3")
PLACES = ("coefficient", "reward")


@dataclass(frozen=True)
class Kl:
    beta: float = 0.0
    """Weight; zero switches it off, and then no reference is computed for it."""
    estimator: str = "k3"
    place: str = "coefficient"
    """`reward` subtracts beta times the estimate from the reward, token by token, before any advantage."""

    def __post_init__(self) -> None:
        if self.beta < 0 or self.estimator not in ESTIMATORS or self.place not in PLACES:
            raise InvalidConfig(
                f"Out of range: {self}.",
                f"Use beta >= 0, estimator = {' | '.join(ESTIMATORS)} and place = {' | '.join(PLACES)}.",
            )
        if self.beta and self.estimator == "k1" and self.place == "coefficient":
            raise InvalidConfig(
                "KL k1 in the coefficient has a gradient of zero on average.",
                'Use estimator = "k2" or "ratio_k3", or place = "reward".',
                "KL_WITHOUT_EFFECT",
            )
        if self.beta and self.estimator == "ratio_k3" and self.place == "reward":
            raise InvalidConfig(
                "Ratio-weighted k3 is a correction of the gradient; a reward has none.",
                'Use estimator = "k1" or "k3" with place = "reward".',
                "KL_WITHOUT_EFFECT",
            )

    def value(self, batch: TokenBatch) -> Tensor:
        """[B] the estimate, nats."""
        x = batch.log_ratio
        match self.estimator:
            case "k1":
                return x
            case "k2":
                return x.square() / 2
            case _:
                return (-x).exp() - 1 + x

    def penalty(self, batch: TokenBatch) -> Tensor | None:
        """[B] what the reward loses: measured at the policy that is to be improved (`old`), so it has no gradient."""
        if not self.beta or self.place != "reward" or batch.reference is None:
            return None
        x = batch.old - batch.reference
        estimate = {"k1": x, "k2": x.square() / 2, "k3": (-x).exp() - 1 + x}[self.estimator]
        return self.beta * estimate

    def coefficient(self, batch: TokenBatch) -> Tensor | None:
        """[B] minus beta times the estimate's derivative by log pi, to be added to the method's own."""
        if not self.beta or self.place != "coefficient":
            return None
        x = batch.log_ratio
        match self.estimator:
            case "k2":
                return -self.beta * x
            case "k3":
                return self.beta * ((-x).exp() - 1)
            case _:
                return -self.beta * (batch.logprobs - batch.old).exp() * x

    def objective(self, batch: TokenBatch) -> Tensor | None:
        """[B] minus beta times the estimate (with its ratio where it has one)."""
        if not self.beta or self.place != "coefficient":
            return None
        ratio = (batch.logprobs - batch.old).exp() if self.estimator == "ratio_k3" else 1.0
        return -self.beta * ratio * self.value(batch)
