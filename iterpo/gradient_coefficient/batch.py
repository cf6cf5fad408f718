"""What a coefficient may look at: one optimiser batch, its tokens flat, before any micro-batch is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """B sampled tokens of S sequences; token b belongs to sequence `sequence[b]`. No tensor here carries gradients.

    Pairs are indices into the sequences; a batch without pairs has empty ones.
    """

    logprobs: Tensor
    """[B] current policy, nats."""
    old: Tensor
    """[B] the trainer's own log-probs at the start of the iteration: what the importance ratio divides by."""
    behaviour: Tensor
    """[B] what the sampler reported when it drew the tokens (equal to `old` where nothing was reported)."""
    reference: Tensor | None
    """[B] KL anchor; None when the algorithm has none."""
    sequence: Tensor
    """[B] int64."""
    lengths: Tensor
    """[S] int64, sampled tokens."""
    group: Tensor
    """[S] int64."""
    reward: Tensor
    """[S]."""
    chosen: Tensor
    """[N] int64, indices of sequences."""
    rejected: Tensor
    """[N] int64."""
    p_chosen: Tensor
    """[N] in [0, 1]: how sure the label is that `chosen` wins."""
    weight: Tensor
    """[N] or, for batches without pairs, [S]."""
    max_tokens: int
    """The sampling limit: the constant of Dr. GRPO and the bound of DAPO's overlong shaping."""

    def sequence_sum(self, per_token: Tensor) -> Tensor:
        """[B] -> [S]."""
        return per_token.new_zeros(len(self.lengths)).index_add(0, self.sequence, per_token)

    def spread(self, per_sequence: Tensor) -> Tensor:
        """[S] -> [B]."""
        return per_sequence[self.sequence]

    @property
    def units(self) -> int:
        """What an average is taken over: pairs when there are any, else sequences."""
        return len(self.chosen) or len(self.lengths)


class Coefficient(Protocol):
    """One gradient coefficient; implementations are frozen dataclasses."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    """Of `rewards` (grouped), `pairs`, `completions`, `reference`."""

    def __call__(self, batch: TokenBatch) -> Tensor:
        """[B], detached, before the normaliser."""
        ...
