"""Trust regions on whole sequences: RLOO's product, GSPO's geometric mean, GMPO's clipped geometric mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.policy_gradient import PolicyGradient, outside

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rloo(PolicyGradient):
    """c = A R 1[not clipped] on every token, R = exp(sum_t log rho_t) (METHODS section 3; arXiv:2402.14740).

    The clipped whole-sequence ratio is TRL's; the paper takes one on-policy step, where R is one.
    """

    name: ClassVar[str] = "rloo"
    formula: ClassVar[str] = "c_t = A R 1[not clipped], R = exp(sum_t log rho_t), A = r_i - mean of the others"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})

    advantage: str = "leave_one_out"
    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self, self.clip_low, self.clip_high)

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = batch.spread(batch.sequence_sum(batch.logprobs - batch.old).exp())
        return advantage * ratio * ~outside(ratio, advantage, 1 - self.clip_low, 1 + self.clip_high)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        """A sequence's surrogate, spread evenly: the normalizer sums it up again."""
        ratio = batch.spread(batch.sequence_sum(batch.logprobs - batch.old).exp())
        least = (advantage * ratio).minimum(advantage * ratio.clamp(1 - self.clip_low, 1 + self.clip_high))
        return least / batch.spread(batch.lengths)


@dataclass(frozen=True)
class Gspo(PolicyGradient):
    """c = A s 1[not clipped] on every token, s = exp(mean_t log rho_t) (arXiv:2507.18071; clip 3e-4 / 4e-4).

    Not implemented: the GSPO-token variant.
    """

    name: ClassVar[str] = "gspo"
    formula: ClassVar[str] = "c_t = A s 1[not clipped], s = exp(mean_t log rho_t)"
    normalizers: ClassVar[frozenset[str]] = frozenset({"per_sequence"})

    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self, self.clip_low, self.clip_high)

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = batch.spread(batch.sequence_mean(batch.logprobs - batch.old).exp())
        return advantage * ratio * ~outside(ratio, advantage, 1 - self.clip_low, 1 + self.clip_high)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        ratio = batch.spread(batch.sequence_mean(batch.logprobs - batch.old).exp())
        return (advantage * ratio).minimum(advantage * ratio.clamp(1 - self.clip_low, 1 + self.clip_high))


@dataclass(frozen=True)
class Gmpo(PolicyGradient):
    """c_t = A s 1[t not clipped] / n, s the geometric mean of one-sidedly clipped ratios (arXiv:2507.20673).

    Clipping comes before the mean: log rho_t is cut at +clip where A > 0 and at -clip where A < 0 (0.4, METHODS).
    """

    name: ClassVar[str] = "gmpo"
    formula: ClassVar[str] = "c_t = A s 1[t not clipped] / n, s = exp(mean_t clipped log rho_t)"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})

    log_clip: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_clip <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use log_clip > 0.")

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        log_ratio = batch.logprobs - batch.old
        clipped = outside(log_ratio, advantage, -self.log_clip, self.log_clip)
        return advantage * self._mean(batch, advantage) * ~clipped / batch.spread(batch.lengths)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return advantage * self._mean(batch, advantage) / batch.spread(batch.lengths)

    def _mean(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        """[B] s."""
        log_ratio = batch.logprobs - batch.old
        upper, lower = log_ratio.clamp(max=self.log_clip), log_ratio.clamp(min=-self.log_clip)
        return batch.spread(batch.sequence_mean(upper.where(advantage > 0, lower)).exp())


def _check_bounds(coefficient: PolicyGradient, low: float, high: float) -> None:
    if not 0 < low <= 1 or high <= 0:
        raise InvalidConfig(f"Out of range: {coefficient}.", "Use 0 < clip_low <= 1 and clip_high > 0.")
