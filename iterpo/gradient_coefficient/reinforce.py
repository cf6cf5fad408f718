"""REINFORCE: the advantage itself, on-policy, no ratio and no trust region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.policy_gradient import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reinforce(PolicyGradient):
    """c = A (METHODS section 3): REINFORCE (Williams 1992), ReMax, OPO, GPG by their advantage.

    Exact only on-policy: with several steps an iteration nothing corrects for the policy having moved.
    """

    name: ClassVar[str] = "reinforce"
    formula: ClassVar[str] = "c_t = A_t"

    advantage: str = "batch_centred"

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return advantage

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return advantage * batch.logprobs
