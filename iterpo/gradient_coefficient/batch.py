"""What a coefficient may look at: one optimiser batch, its tokens flat, before any micro-batch is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """B sampled tokens of S sequences, sequence after sequence. No tensor here carries gradients.

    Letters: B tokens, S sequences, N pairs (indices into the sequences; a batch without pairs has empty ones).
    Optional fields are None where the method needs them not; masked tokens were left out before the batch was made.
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
    """[B] int64, not decreasing."""
    lengths: Tensor
    """[S] int64, sampled tokens; a sequence all of whose tokens are masked has 0."""
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
    max_tokens: int | None
    """The sampling limit: the constant of Dr. GRPO and the bound of DAPO's overlong shaping. None: not known."""
    role: Tensor | None = None
    """[S] int64: 1 chosen or desirable, -1 rejected or undesirable, 0 neither (KTO: a mismatched pair's answer)."""
    strength: Tensor | None = None
    """[N] how much better `chosen` is, as a weight (TIPO); 1 where nobody said."""
    truncated: Tensor | None = None
    """[S] bool: cut at the token limit."""
    from_reference: Tensor | None = None
    """[S] bool: drawn from the reference or a mixture with it, not from the current policy."""
    baseline: Tensor | None = None
    """[S] what the response sampler measured for the prompt: the greedy answer's reward (ReMax), V* (A*-PO)."""
    values: Tensor | None = None
    """[B] the critic's value of the state before each token, as the iteration began."""
    reference_kl: Tensor | None = None
    """[B] KL(reference; current) over the whole vocabulary where each token was drawn, nats (TDPO)."""
    penalty: Tensor | None = None
    """[B] what the reward loses at each token: beta times a KL estimate, when KL stands in the reward."""
    mismatched: Tensor | None = None
    """[M] summed log-ratios of answers to other prompts than their own (KTO's z0)."""
    returns: Tensor | None = None
    """[B] what the critic learns, computed over the iteration's whole batch."""
    advantage: Tensor | None = None
    """[B] computed over the iteration's whole batch before minibatches are cut; None: compute it from this batch."""

    def sequence_sum(self, per_token: Tensor) -> Tensor:
        """[B] -> [S]."""
        return per_token.new_zeros(len(self.lengths)).index_add(0, self.sequence, per_token)

    def sequence_mean(self, per_token: Tensor) -> Tensor:
        """[B] -> [S]; 0 for a sequence without tokens."""
        return self.sequence_sum(per_token) / self.lengths.clamp(min=1)

    def spread(self, per_sequence: Tensor) -> Tensor:
        """[S] -> [B]."""
        return per_sequence[self.sequence]

    @property
    def position(self) -> Tensor:
        """[B] int64: which token of its sequence, from 0."""
        starts = self.lengths.cumsum(0) - self.lengths
        return self.sequence.new_tensor(range(len(self.sequence))) - starts[self.sequence]

    @property
    def units(self) -> int:
        """What an average is taken over: pairs when there are any, else sequences."""
        return len(self.chosen) or len(self.lengths)

    @property
    def log_ratio(self) -> Tensor:
        """[B] log pi - log ref."""
        if self.reference is None:
            raise ValueError("this coefficient needs reference log-probs, and the batch has none")
        return self.logprobs - self.reference

    @property
    def chosen_tokens(self) -> int:
        """Tokens of the chosen sides of all pairs: what a likelihood of the chosen answers is averaged over."""
        return int(self.lengths[self.chosen].sum())

    def part(self, sequences: Sequence[int]) -> TokenBatch:
        """The batch of these sequences alone, in this order, with the pairs that lie inside."""
        return replace(self, **_part(self, sequences))  # type: ignore[arg-type]  # tensors stay tensors, None stays None


_PER_TOKEN = (
    *("logprobs", "old", "behaviour", "reference", "values", "reference_kl", "penalty", "returns", "advantage"),
)
_PER_SEQUENCE = ("lengths", "group", "reward", "role", "truncated", "from_reference", "baseline")
_PER_PAIR = ("p_chosen", "strength")


def _part(batch: TokenBatch, sequences: Sequence[int]) -> Mapping[str, Tensor | None]:
    chosen = batch.lengths.new_tensor(sequences)
    ends = batch.lengths.cumsum(0)
    spans = [range(int(ends[i] - batch.lengths[i]), int(ends[i])) for i in sequences]
    tokens = batch.lengths.new_tensor([t for span in spans for t in span])
    place = batch.lengths.new_full((len(batch.lengths),), -1)
    place[chosen] = place.new_tensor(range(len(sequences)))
    inside = (place[batch.chosen] >= 0) & (place[batch.rejected] >= 0)
    weights = batch.weight[inside] if len(batch.chosen) else batch.weight[chosen]
    known = {f.name: getattr(batch, f.name) for f in fields(batch)}
    taken: dict[str, Tensor | None] = {"weight": weights}
    for names, index in ((_PER_TOKEN, tokens), (_PER_SEQUENCE, chosen), (_PER_PAIR, inside)):
        taken |= {name: None if known[name] is None else known[name][index] for name in names}
    taken |= {"chosen": place[batch.chosen[inside]], "rejected": place[batch.rejected[inside]]}
    lengths = batch.lengths[chosen]
    return taken | {"sequence": place.new_tensor(range(len(sequences))).repeat_interleave(lengths)}


class Coefficient(Protocol):
    """One gradient coefficient; implementations are frozen dataclasses whose fields are the hyper-parameters."""

    name: ClassVar[str]
    formula: ClassVar[str]
    """c_t as a reader of the paper would write it, in the ascent direction, before the normalizer."""
    normalizers: ClassVar[frozenset[str]]
    """The normalizers under which the method is the published one; empty: any."""

    @property
    def needs(self) -> frozenset[str]:
        """Of `completions`, `rewards`, `pairs`, `roles`, `baseline`, `origins`, which a response sampler provides, and
        `reference`, `values`, `mismatched`, `reference_kl`, which the learner measures."""
        ...

    @property
    def needs_a_group(self) -> bool:
        """Whether a group of one teaches nothing."""
        ...

    def __call__(self, batch: TokenBatch) -> Tensor:
        """[B], detached, before the normaliser."""
        ...

    def objective(self, batch: TokenBatch) -> Tensor:
        """[B] such that the gradient of sum(normalizer * objective) with respect to the log-probs is
        normalizer * coefficient. Differentiable in `batch.logprobs`; what the paper detaches is detached."""
        ...

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        """What a reader of this batch would ask for: clip fraction, margin, accuracy."""
        ...


@runtime_checkable
class Critical(Protocol):
    """A coefficient with a critic beside it."""

    def returns(self, batch: TokenBatch) -> Tensor:
        """[B] what the critic shall learn."""
        ...


@runtime_checkable
class Distributional(Protocol):
    """A coefficient part of whose gradient goes through KL(reference; current) over the whole vocabulary."""

    def kl_weights(self, batch: TokenBatch) -> Tensor:
        """[B] what each token's KL gradient is multiplied with, in the ascent direction."""
        ...


@runtime_checkable
class Termed(Protocol):
    """A coefficient that says what its number is made of."""

    def terms(self, batch: TokenBatch) -> dict[str, Tensor]:
        """[B] each, by the names that a reader of the formula knows."""
        ...
