"""Nash-MD: a policy gradient on the probability of winning against a mixture with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NashMd:
    """c_t = (P(y > y') - 1/2) - beta log(pi/ref)_t on the policy's own answer; its rival gets nothing
    (arXiv:2312.00886; METHODS section 5). The rival y' is drawn from a mixture of policy and reference.
    """

    name: ClassVar[str] = "nash_md"
    formula: ClassVar[str] = "c_t = (P(y > y') - 1/2) - beta log(pi/ref)_t on y, 0 on y'"
    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = frozenset({"completions", "pairs", "reference", "origins"})
    needs_a_group = False
    on_policy = True
    """Its pairs are samples of a policy gradient, and may be too old for it."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta >= 0.")

    def __call__(self, batch: TokenBatch) -> Tensor:
        own = batch.spread(self._own(batch))
        return own * (batch.spread(self._win(batch)) - 0.5 - self.beta * batch.log_ratio)

    def objective(self, batch: TokenBatch) -> Tensor:
        """Its gradient by REINFORCE: win and log-ratio are detached, as in the paper's estimator."""
        own = batch.spread(self._own(batch))
        weight = batch.spread(self._win(batch)) - 0.5 - self.beta * batch.log_ratio.detach()
        return own * weight * batch.logprobs

    def _own(self, batch: TokenBatch) -> Tensor:
        """[S] the pair's weight on answers of the policy, else 0."""
        if batch.from_reference is None:
            raise InvalidInput("Nash-MD must know which answer is the rival.", "Use the sampling `geometric_rival`.")
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        weighted = flat.index_add(0, batch.chosen, batch.weight).index_add(0, batch.rejected, batch.weight)
        return weighted * ~batch.from_reference

    def _win(self, batch: TokenBatch) -> Tensor:
        """[S] P(this answer wins its pair)."""
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        return flat.index_add(0, batch.chosen, batch.p_chosen).index_add(0, batch.rejected, 1 - batch.p_chosen)

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        own = self._own(batch) > 0
        return {"win_rate": float(self._win(batch)[own].mean())}
