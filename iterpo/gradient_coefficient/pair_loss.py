"""The part that all preference losses share: a statistic of each sequence, and a link between the two of a pair.

x_s = statistic of sequence s, linear in its log-probs with weight u_t (1 for a sum, 1/n for a mean)
value(w, l) = minus the loss when w is preferred to l; slopes = its derivatives by x_w and x_l
c_t = u_t * [p slope(w, l) + (1 - p) slope(l, w)], scaled by the pair's weight: a soft label mixes both orders
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

WITH_REFERENCE = frozenset({"completions", "pairs", "reference"})
WITHOUT_REFERENCE = frozenset({"completions", "pairs"})


@dataclass(frozen=True)
class PairLoss:
    """Subclasses give `statistic`, `unit` (if not one), `value` and `slopes`, and perhaps `likelihood`."""

    normalizers: ClassVar[frozenset[str]] = frozenset({"sequence_sum"})
    needs = WITH_REFERENCE
    needs_a_group = False

    def statistic(self, batch: TokenBatch) -> Tensor:
        """[S] x: the summed log-ratio to the reference, D, unless a subclass says otherwise."""
        return batch.sequence_sum(batch.log_ratio)

    def unit(self, batch: TokenBatch) -> Tensor:
        """[B] u: how much a token's log-prob counts in its sequence's statistic."""
        return batch.logprobs.new_ones(len(batch.logprobs))

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        """[N] minus the loss of pairs given by indices of sequences."""
        raise NotImplementedError

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        """([N], [N]) derivatives of `value` by the winner's and the loser's statistic."""
        raise NotImplementedError

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        """[B] a likelihood term of the loss: what it adds to each token's coefficient."""
        return None

    def weight(self, batch: TokenBatch) -> Tensor:
        """[N]."""
        return batch.weight

    def __call__(self, batch: TokenBatch) -> Tensor:
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        for p, winner, loser in self._orders(batch):
            up, down = self.slopes(batch, winner, loser)
            flat = flat.index_add(0, winner, p * up).index_add(0, loser, p * down)
        coefficient = batch.spread(flat) * self.unit(batch)
        likelihood = self.likelihood(batch)
        return coefficient if likelihood is None else coefficient + likelihood

    def objective(self, batch: TokenBatch) -> Tensor:
        """A pair's value, half on each side, spread evenly: the normalizer sums it up again."""
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        for p, winner, loser in self._orders(batch):
            half = p * self.value(batch, winner, loser) / 2
            flat = flat.index_add(0, winner, half).index_add(0, loser, half)
        spread = batch.spread(flat / batch.lengths)
        likelihood = self.likelihood(batch)
        return spread if likelihood is None else spread + likelihood.detach() * batch.logprobs

    def _orders(self, batch: TokenBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(weight times probability [N], winner [N], loser [N]) for both orders that a label leaves possible."""
        weight, p = self.weight(batch), batch.p_chosen
        orders = [(weight * p, batch.chosen, batch.rejected)]
        if bool((p < 1).any()):
            orders.append((weight * (1 - p), batch.rejected, batch.chosen))
        return orders

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        x = self.statistic(batch)
        margin = x[batch.chosen] - x[batch.rejected]
        return {
            "margin_mean": float(margin.mean()),
            "accuracy": float((margin > 0).double().mean()),
            "chosen_logprob_mean": float(batch.sequence_sum(batch.logprobs)[batch.chosen].mean()),
            "rejected_logprob_mean": float(batch.sequence_sum(batch.logprobs)[batch.rejected].mean()),
        }

    def terms(self, batch: TokenBatch) -> dict[str, Tensor]:
        """`margin`: x_w - x_l of the pair that the sequence is in, 0 in none."""
        x = self.statistic(batch)
        margin = x[batch.chosen] - x[batch.rejected]
        of_sequence = x.new_zeros(len(x)).index_copy(0, batch.chosen, margin).index_copy(0, batch.rejected, margin)
        return {"statistic": batch.spread(x), "margin": batch.spread(of_sequence), "unit": self.unit(batch)}


@dataclass(frozen=True)
class MarginLoss(PairLoss):
    """A loss of the difference z = x_w - x_l alone: subclasses give `link` and `slope`."""

    def link(self, z: Tensor) -> Tensor:
        """[N] minus the loss."""
        raise NotImplementedError

    def slope(self, z: Tensor) -> Tensor:
        """[N] the link's derivative."""
        raise NotImplementedError

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x = self.statistic(batch)
        return self.link(x[winner] - x[loser])

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x = self.statistic(batch)
        slope = self.slope(x[winner] - x[loser])
        return slope, -slope


@dataclass(frozen=True)
class SmoothPair(PairLoss):
    """A loss of both sides by themselves, in x = beta D."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0.")

    def _pair(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x = self.beta * self.statistic(batch)
        return x[winner], x[loser]


def log_sigmoid(z: Tensor) -> Tensor:
    """log s(z), exact for large z of either sign."""
    return -z.new_zeros(()).logaddexp(-z)


def mean_logprob(batch: TokenBatch) -> Tensor:
    """[S] log-prob a token."""
    return batch.sequence_mean(batch.logprobs)


def per_length(batch: TokenBatch) -> Tensor:
    """[B] 1/n: the unit of a mean."""
    return 1 / batch.spread(batch.lengths).to(batch.logprobs.dtype)


def on_chosen(batch: TokenBatch) -> Tensor:
    """[B] 1 on the tokens of chosen answers, else 0."""
    flag = batch.logprobs.new_zeros(len(batch.lengths)).index_fill(0, batch.chosen, 1.0)
    return batch.spread(flag)


def token_likelihood(batch: TokenBatch) -> Tensor:
    """[B] whose sum with log-probs, averaged over pairs, is the mean log-prob of all chosen tokens (CPO, ORPO)."""
    return on_chosen(batch) * len(batch.chosen) / max(1, batch.chosen_tokens)


def answer_likelihood(batch: TokenBatch) -> Tensor:
    """[B] whose sum with log-probs, averaged over pairs, is the chosen answers' mean log-prob a token, each answer
    counting alike (Iterative RPO)."""
    return on_chosen(batch) * per_length(batch)
