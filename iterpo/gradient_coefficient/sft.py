"""Maximum likelihood: every completion token counts one, or its own probability."""

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
    formula: ClassVar[str] = "c_t = 1"
    normalizers: ClassVar[frozenset[str]] = frozenset()
    needs = frozenset({"completions"})
    needs_a_group = False

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.new_ones(len(batch.logprobs))

    def objective(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        return {"nll": float(-batch.logprobs.mean())}


@dataclass(frozen=True)
class Dft(Sft):
    """c = sg(pi(y_t)): dynamic fine-tuning (arXiv:2508.05629), which leaves improbable tokens nearly alone."""

    name: ClassVar[str] = "dft"
    formula: ClassVar[str] = "c_t = pi(y_t)"

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.exp()

    def objective(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.detach().exp() * batch.logprobs
