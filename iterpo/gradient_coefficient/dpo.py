"""Direct preference optimisation and the methods that change its link or add one term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.pair_loss import MarginLoss, answer_likelihood, log_sigmoid, per_length

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dpo(MarginLoss):
    """-log s(beta d), d the difference of summed log-ratios; c_w = beta s(-beta d), c_l the same downwards
    (arXiv:2305.18290; METHODS section 4).

    `label_smoothing` e takes a share of labels to be flipped: cDPO, (1-e) l(d) + e l(-d). `robust` debiases instead:
    [(1-e) l(d) - e l(-d)] / (1-2e) (arXiv:2403.00409). `nll` adds alpha NLL(y_w) / n_w: Iterative RPO
    (arXiv:2404.19733). A label that is not sure (`p_chosen`) mixes both orders, as cDPO does with its share.
    """

    name: ClassVar[str] = "dpo"
    formula: ClassVar[str] = "c_w = beta s(-beta d) (+ nll/n_w), c_l = -beta s(-beta d), d = D_w - D_l"

    beta: float = 0.1
    label_smoothing: float = 0.0
    robust: bool = False
    nll: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5 or self.nll < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0, 0 <= label_smoothing < 0.5 and nll >= 0.")

    def link(self, z: Tensor) -> Tensor:
        right, wrong = self._shares
        return right * log_sigmoid(self.beta * z) + wrong * log_sigmoid(-self.beta * z)

    def slope(self, z: Tensor) -> Tensor:
        right, wrong = self._shares
        return self.beta * (right * (-self.beta * z).sigmoid() - wrong * (self.beta * z).sigmoid())

    @property
    def _shares(self) -> tuple[float, float]:
        """Weights of log s(beta z) and log s(-beta z)."""
        e = self.label_smoothing
        return ((1 - e) / (1 - 2 * e), -e / (1 - 2 * e)) if self.robust else (1 - e, e)

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        return self.nll * answer_likelihood(batch) if self.nll else None


@dataclass(frozen=True)
class LengthDpo(Dpo):
    """DPO whose statistic knows lengths: length-normalised DPO (1/n), R-DPO (an offset), LD-DPO (a lighter tail).

    `normalised`: -log s(beta (D_w/n_w - D_l/n_l)), published beta 5 (open-instruct).
    `alpha`: -log s(beta d + alpha (n_w - n_l)): the reward less alpha a token, oat's sign (arXiv:2403.19159). Searched
    between 0.05 and 1 by SimPO's authors; no single published default was found.
    `tail`: tokens beyond the shorter answer's length count `tail` (LD-DPO, arXiv:2409.06411, 0.5).
    """

    name: ClassVar[str] = "length_dpo"
    formula: ClassVar[str] = (
        "as dpo; d of means | margin beta d + alpha (n_w - n_l) | tokens beyond the shorter answer times `tail`"
    )

    normalised: bool = False
    alpha: float = 0.0
    tail: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tail <= 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use 0 <= tail <= 1.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        offset = self.alpha / self.beta * batch.lengths
        return batch.sequence_sum(self.unit(batch) * batch.log_ratio) + offset

    def unit(self, batch: TokenBatch) -> Tensor:
        unit = per_length(batch) if self.normalised else batch.logprobs.new_ones(len(batch.logprobs))
        if self.tail == 1:
            return unit
        shorter = batch.lengths.clone()
        both = batch.lengths[batch.chosen].minimum(batch.lengths[batch.rejected])
        shorter[batch.chosen], shorter[batch.rejected] = both, both
        return unit.where(batch.position < batch.spread(shorter), self.tail * unit)


@dataclass(frozen=True)
class Dpop(Dpo):
    """-log s(beta [d - lam max(0, -D_w)]): the chosen answer may not become less likely (arXiv:2402.13228, lam 50).

    Where D_w < 0: c_w = beta (1 + lam) s(-m), c_l = -beta s(-m).
    """

    name: ClassVar[str] = "dpop"
    formula: ClassVar[str] = "c_w = beta (1 + lam 1[D_w < 0]) s(-m), c_l = -beta s(-m), m = beta [d - lam max(0, -D_w)]"

    lam: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use lam >= 0.")

    def _margin(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x = self.statistic(batch)
        return x[winner] - x[loser] - self.lam * (-x[winner]).clamp(min=0)

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        return self.link(self._margin(batch, winner, loser))

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.slope(self._margin(batch, winner, loser))
        fell = (self.statistic(batch)[winner] < 0).to(slope.dtype)
        return slope * (1 + self.lam * fell), -slope


@dataclass(frozen=True)
class Tipo(Dpo):
    """DPO scaled by how much better the chosen answer is (arXiv:2604.11559; form inferred in METHODS).

    The label's strength multiplies the pair. The padding gate is the mask: masked steps are not in the batch.
    """

    name: ClassVar[str] = "tipo"
    formula: ClassVar[str] = "as dpo, times the label's strength"

    def weight(self, batch: TokenBatch) -> Tensor:
        return batch.weight if batch.strength is None else batch.weight * batch.strength


@dataclass(frozen=True)
class OffsetDpo(Dpo):
    """-log s(beta d - alpha max(0, log strength)): what people called much better must be told apart by more (ODPO,
    arXiv:2402.10571, whose offset is alpha log of a score difference; here of the label's strength, 1 to 3).

    alpha was searched between 0 and 1 by the authors; no single published default was found. An unsure label asks for
    the offset in either order.
    """

    name: ClassVar[str] = "odpo"
    formula: ClassVar[str] = "as dpo, with margin beta d - alpha max(0, log strength)"

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use alpha >= 0.")

    def _gap(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x = self.statistic(batch)
        if batch.strength is None:
            return x[winner] - x[loser]
        return x[winner] - x[loser] - self.alpha / self.beta * batch.strength.log().clamp(min=0)

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        return self.link(self._gap(batch, winner, loser))

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.slope(self._gap(batch, winner, loser))
        return slope, -slope


@dataclass(frozen=True)
class Xpo(Dpo):
    """DPO + alpha log pi(y_ref): c loses alpha on tokens of answers that the reference drew (arXiv:2405.21046).

    alpha 1e-5 is TRL's, 5e-6 oat's.
    """

    name: ClassVar[str] = "xpo"
    formula: ClassVar[str] = "as dpo, less alpha on tokens that the reference drew"
    needs = frozenset({"completions", "pairs", "reference", "origins"})

    alpha: float = 1e-5

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        if batch.from_reference is None:
            raise InvalidInput("XPO must know which answers the reference drew.", "Use the sampling `one_from_each`.")
        return -self.alpha * batch.spread(batch.from_reference).to(batch.logprobs.dtype)


@dataclass(frozen=True)
class Tdpo(Dpo):
    """-log s(beta d - delta), delta a difference of sequence KLs over the whole vocabulary (arXiv:2404.11999).

    K = sum_t KL(ref; pi). Version 1: delta = beta (K_l - K_w). Version 2: delta = alpha beta (K_l - sg(K_w)).
    c is DPO's with the shifted margin; the gradient through K is the regularizer `reference_kl` (`kl_weights`).
    """

    name: ClassVar[str] = "tdpo"
    formula: ClassVar[str] = "as dpo, with margin beta d - delta; and +-beta s(-m) on KL(ref; pi), by the regularizer"
    needs = frozenset({"completions", "pairs", "reference", "reference_kl"})

    version: int = 2
    alpha: float = 0.5
    """Of version 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in (1, 2) or self.alpha < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use version 1 or 2 and alpha >= 0.")

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x, k = self.statistic(batch), self._kl(batch)
        return self.link(x[winner] - x[loser] - self._scale * (k[loser] - k[winner]))

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x, k = self.statistic(batch), self._kl(batch)
        slope = self.slope(x[winner] - x[loser] - self._scale * (k[loser] - k[winner]))
        return slope, -slope

    def kl_weights(self, batch: TokenBatch) -> Tensor:
        """[B] d value / d KL_t: what the regularizer multiplies the gradient of each token's KL(ref; pi) with."""
        flat = batch.logprobs.new_zeros(len(batch.lengths))
        for p, winner, loser in self._orders(batch):
            slope = self.slopes(batch, winner, loser)[0] * self._scale
            flat = flat.index_add(0, loser, -p * slope)
            if self.version == 1:
                flat = flat.index_add(0, winner, p * slope)
        return batch.spread(flat)

    @property
    def _scale(self) -> float:
        return 1.0 if self.version == 1 else self.alpha

    def _kl(self, batch: TokenBatch) -> Tensor:
        """[S] K."""
        if batch.reference_kl is None:
            raise InvalidInput("TDPO needs KL(ref; pi) of every token.", "Give `reference_kl`.")
        return batch.sequence_sum(batch.reference_kl)
