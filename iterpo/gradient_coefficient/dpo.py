"""Direct preference optimisation, with soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dpo:
    """c_chosen = +beta (q - s(beta d)), c_rejected = -beta (q - s(beta d)) on every token (METHODS section 4).

    d is the difference of the summed log-ratios to the reference, s the logistic function and q the probability that
    `chosen` wins: 1 for plain DPO (arXiv:2305.18290, where it is beta s(-beta d)), 1 - epsilon for cDPO's smoothing,
    `p_chosen` for a label that is not sure. Per pair weights scale both sides.
    """

    name: ClassVar[str] = "dpo"
    needs: ClassVar[frozenset[str]] = frozenset({"completions", "pairs", "reference"})

    beta: float = 0.1
    label_smoothing: float = 0.0
    """cDPO's epsilon: the share of labels taken to be flipped."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0 and 0 <= label_smoothing < 0.5.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        strength = self.beta * batch.weight * (self.target(batch) - (self.beta * self.margin(batch)).sigmoid())
        per_sequence = batch.logprobs.new_zeros(len(batch.lengths))
        per_sequence = per_sequence.index_add(0, batch.chosen, strength).index_add(0, batch.rejected, -strength)
        return batch.spread(per_sequence)

    def margin(self, batch: TokenBatch) -> Tensor:
        """[N] d, nats."""
        if batch.reference is None:
            raise InvalidConfig("DPO needs reference log-probs.", "Use an algorithm whose reference is not `none`.")
        log_ratio = batch.sequence_sum(batch.logprobs - batch.reference)
        return log_ratio[batch.chosen] - log_ratio[batch.rejected]

    def target(self, batch: TokenBatch) -> Tensor:
        """[N] q."""
        return batch.p_chosen * (1 - self.label_smoothing) + (1 - batch.p_chosen) * self.label_smoothing
