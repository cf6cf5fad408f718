"""Pass@k training: the group is rewarded for k tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.advantage import pass_at_k
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.grpo import Grpo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassAtK(Grpo):
    """c = A rho 1[not clipped] with the analytic pass@k advantage (arXiv:2508.10751, METHODS section 3)."""

    name: ClassVar[str] = "pass_at_k"
    formula: ClassVar[str] = "c_t = A rho_t 1[not clipped]; A+ = (1-R)/sd, A- = (1-R-C(m-1,k-1)/C(N-1,k-1))/sd"

    advantage: str = "raw"
    """Not used: pass@k has its own."""
    k: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage != "raw":
            raise InvalidConfig(f"{self.name} has an advantage of its own.", "Remove gradient_coefficient.advantage.")
        if self.k < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use k >= 1.")

    @property
    def needs_a_group(self) -> bool:
        return True

    def advantages(self, batch: TokenBatch) -> Tensor:
        return batch.advantage if batch.advantage is not None else pass_at_k(batch, self.shaped(batch), self.k)
