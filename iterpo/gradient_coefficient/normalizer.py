"""The 1/N of the policy gradient: a named choice, computed over the whole optimiser batch (invariant 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from iterpo.errors import InvalidInput
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


class Normalizer(Protocol):
    name: ClassVar[str]

    def __call__(self, batch: TokenBatch) -> Tensor:
        """[B] what each token's coefficient is multiplied by."""
        ...


@dataclass(frozen=True)
class PerSequence:
    """Mean over a sequence's tokens, then over sequences: GRPO as published."""

    name: ClassVar[str] = "per_sequence"

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.spread(1 / (batch.lengths.to(batch.logprobs.dtype) * len(batch.lengths)))


@dataclass(frozen=True)
class PerToken:
    """Mean over all tokens of the batch: DAPO, and the default of verl, TRL and OpenRLHF."""

    name: ClassVar[str] = "per_token"

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.new_full((len(batch.logprobs),), 1 / max(1, len(batch.logprobs)))


@dataclass(frozen=True)
class Constant:
    """Divided by the longest allowed completion, then mean over sequences: Dr. GRPO, without length bias."""

    name: ClassVar[str] = "constant"

    def __call__(self, batch: TokenBatch) -> Tensor:
        if batch.max_tokens is None:
            raise InvalidInput(
                "The normalizer `constant` divides by the longest allowed answer, which the batch does not say.",
                "Give the batch a `normalizer_constant` beside its `sequences`: the longest allowed answer, in tokens.",
                "CONSTANT_MISSING",
            )
        return batch.logprobs.new_full((len(batch.logprobs),), 1 / (batch.max_tokens * len(batch.lengths)))


@dataclass(frozen=True)
class SequenceSum:
    """Sum over a sequence's tokens, then mean over pairs (or over sequences where there are none): DPO."""

    name: ClassVar[str] = "sequence_sum"

    def __call__(self, batch: TokenBatch) -> Tensor:
        return batch.logprobs.new_full((len(batch.logprobs),), 1 / batch.units)


NORMALIZERS: dict[str, type[Normalizer]] = {n.name: n for n in (PerSequence, PerToken, Constant, SequenceSum)}
