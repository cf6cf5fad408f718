"""Maximum likelihood: every completion token counts one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sft:
    """c = 1 on completion tokens, end of sequence included (METHODS section 2).

    With a rejection sampler in front this is RFT / RAFT: REINFORCE with a 0/1 reward, no baseline, no negatives.
    The prompt's tokens are never trained on; packing across documents is not implemented.
    """

    name: ClassVar[str] = "sft"
    needs: ClassVar[frozenset[str]] = frozenset({"completions"})

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.new_ones(len(batch.logprobs))
