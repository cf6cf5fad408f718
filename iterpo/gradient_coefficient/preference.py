"""Preference losses with a link of their own: IPO, SLiC, SimPO, EXO, NCA, APO, BCO, SPPO, the mixture MPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.dpo import Dpo
from iterpo.gradient_coefficient.pair_loss import (
    WITHOUT_REFERENCE,
    MarginLoss,
    PairLoss,
    SmoothPair,
    log_sigmoid,
    mean_logprob,
    per_length,
    token_likelihood,
)

if TYPE_CHECKING:
    from torch import Tensor


SURE = -1e-6
"""Largest mean log-prob that ORPO reckons with, nats a token."""


@dataclass(frozen=True)
class Ipo(MarginLoss):
    """(h - 1/(2 tau))^2; c_w = 2 (1/(2 tau) - h) / n_w (arXiv:2310.12036).

    h is the difference of mean log-ratios (TRL, HALOs, oat, RLHFlow), or of sums (`mean` false: OpenRLHF, and the
    paper's own form); then nothing is divided by n.
    """

    name: ClassVar[str] = "ipo"
    formula: ClassVar[str] = "c_w = 2 (1/(2 tau) - h) / n_w, c_l = -2 (1/(2 tau) - h) / n_l (sum form: no 1/n)"

    tau: float = 0.1
    mean: bool = True

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use tau > 0.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        return batch.sequence_mean(batch.log_ratio) if self.mean else super().statistic(batch)

    def unit(self, batch: TokenBatch) -> Tensor:
        return per_length(batch) if self.mean else super().unit(batch)

    def link(self, z: Tensor) -> Tensor:
        return -(z - 1 / (2 * self.tau)).square()

    def slope(self, z: Tensor) -> Tensor:
        return 2 * (1 / (2 * self.tau) - z)


@dataclass(frozen=True)
class Slic(MarginLoss):
    """max(0, 1 - beta d), c = beta 1[beta d < 1]: the hinge on log-ratios of TRL and oat (arXiv:2305.10425)."""

    name: ClassVar[str] = "slic"
    formula: ClassVar[str] = "c_w = beta 1[beta d < 1], c_l = -c_w"

    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0.")

    def link(self, z: Tensor) -> Tensor:
        return -(1 - self.beta * z).clamp(min=0)

    def slope(self, z: Tensor) -> Tensor:
        return self.beta * (self.beta * z < 1).to(z.dtype)


@dataclass(frozen=True)
class SlicHf(MarginLoss):
    """max(0, delta - log pi_w + log pi_l) + lam NLL(y_w): the original, without a reference (HALOs: delta 1, lam 0.1).

    The likelihood is averaged over the chosen tokens of the batch.
    """

    name: ClassVar[str] = "slic_hf"
    formula: ClassVar[str] = "c_w = 1[lp_w - lp_l < delta] + lam P/N, c_l = -1[lp_w - lp_l < delta]"
    needs = WITHOUT_REFERENCE

    delta: float = 1.0
    lam: float = 0.1

    def __post_init__(self) -> None:
        if self.delta < 0 or self.lam < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use delta >= 0 and lam >= 0.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        return batch.sequence_sum(batch.logprobs)

    def link(self, z: Tensor) -> Tensor:
        return -(self.delta - z).clamp(min=0)

    def slope(self, z: Tensor) -> Tensor:
        return (z < self.delta).to(z.dtype)

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        return self.lam * token_likelihood(batch)


@dataclass(frozen=True)
class Simpo(MarginLoss):
    """-log s(beta (lp_w/n_w - lp_l/n_l) - gamma), without a reference (arXiv:2405.14734).

    beta 2 to 10 and gamma/beta 0.1 to 0.8 were published; 2.5 and 0.55 are the README's for Llama-3-8B-Instruct.
    """

    name: ClassVar[str] = "simpo"
    formula: ClassVar[str] = "c_w = beta s(-m)/n_w, c_l = -beta s(-m)/n_l, m = beta (lp_w/n_w - lp_l/n_l) - gamma"
    needs = WITHOUT_REFERENCE

    beta: float = 2.5
    gamma_over_beta: float = 0.55

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        return mean_logprob(batch)

    def unit(self, batch: TokenBatch) -> Tensor:
        return per_length(batch)

    def link(self, z: Tensor) -> Tensor:
        return log_sigmoid(self.beta * (z - self.gamma_over_beta))

    def slope(self, z: Tensor) -> Tensor:
        return self.beta * (self.beta * (self.gamma_over_beta - z)).sigmoid()


@dataclass(frozen=True)
class Cpo(MarginLoss):
    """-log s(beta (lp_w - lp_l)) + nll NLL(y_w), without a reference (arXiv:2401.08417; beta 0.1, weight 1).

    The likelihood is averaged over the chosen tokens of the batch.
    """

    name: ClassVar[str] = "cpo"
    formula: ClassVar[str] = "c_w = beta s(-beta z) + nll P/N, c_l = -beta s(-beta z), z = lp_w - lp_l"
    needs = WITHOUT_REFERENCE

    beta: float = 0.1
    nll: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.nll < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0 and nll >= 0.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        return batch.sequence_sum(batch.logprobs)

    def link(self, z: Tensor) -> Tensor:
        return log_sigmoid(self.beta * z)

    def slope(self, z: Tensor) -> Tensor:
        return self.beta * (-self.beta * z).sigmoid()

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        return self.nll * token_likelihood(batch)


@dataclass(frozen=True)
class Orpo(PairLoss):
    """NLL(y_w) - lam log s(log odds ratio), odds = p/(1-p), p = exp(mean log-prob) (arXiv:2403.07691; lam 0.1).

    c_w = 1/N + lam s(-lo) / ((1 - p_w) n_w). The likelihood covers the chosen answers' tokens; TRL's covers the prompt
    too.
    """

    name: ClassVar[str] = "orpo"
    formula: ClassVar[str] = "c_w = P/N + lam s(-lo)/((1-p_w) n_w), c_l = -lam s(-lo)/((1-p_l) n_l)"
    needs = WITHOUT_REFERENCE

    lam: float = 0.1

    def __post_init__(self) -> None:
        if self.lam <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use lam > 0.")

    def statistic(self, batch: TokenBatch) -> Tensor:
        return mean_logprob(batch).clamp(max=SURE)  # short of certainty, where odds are infinite

    def unit(self, batch: TokenBatch) -> Tensor:
        return per_length(batch)

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        odds = log_odds(self.statistic(batch))
        return self.lam * log_sigmoid(odds[winner] - odds[loser])

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x = self.statistic(batch)
        odds, steep = log_odds(x), -1 / x.expm1()  # d log odds / d x = 1 / (1 - p)
        slope = self.lam * (odds[loser] - odds[winner]).sigmoid()
        return slope * steep[winner], -slope * steep[loser]

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        return token_likelihood(batch)


def log_odds(mean: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), exact for p near one."""
    return mean - (-mean.expm1()).log()


@dataclass(frozen=True)
class Exo(MarginLoss):
    """KL(softmax(beta D) ; [1-e, e]) of two answers: the reverse KL (arXiv:2402.00856; e 1e-3, and e = 0 breaks).

    c_w = beta q(1-q) [log((1-e)/e) - beta d], q = s(beta d). Not implemented: more than two answers.
    """

    name: ClassVar[str] = "exo"
    formula: ClassVar[str] = "c_w = beta q(1-q)[log((1-e)/e) - beta d], q = s(beta d), c_l = -c_w"

    beta: float = 0.1
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.beta <= 0 or not 0 < self.epsilon < 0.5:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0 and 0 < epsilon < 0.5.")

    def link(self, z: Tensor) -> Tensor:
        q = (self.beta * z).sigmoid()
        right = q * (log_sigmoid(self.beta * z) - q.new_tensor(1 - self.epsilon).log())
        return -(right + (1 - q) * (log_sigmoid(-self.beta * z) - q.new_tensor(self.epsilon).log()))

    def slope(self, z: Tensor) -> Tensor:
        q = (self.beta * z).sigmoid()
        odds = q.new_tensor((1 - self.epsilon) / self.epsilon).log()
        return self.beta * q * (1 - q) * (odds - self.beta * z)


@dataclass(frozen=True)
class Nca(SmoothPair):
    """-log s(x_w) - 1/2 log s(-x_w) - 1/2 log s(-x_l), x = beta D (arXiv:2402.05369; beta 0.01)."""

    name: ClassVar[str] = "nca"
    formula: ClassVar[str] = "c_w = beta [s(-x_w) - s(x_w)/2], c_l = -beta s(x_l)/2, x = beta D"

    beta: float = 0.01

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        w, x_l = self._pair(batch, winner, loser)
        return log_sigmoid(w) + log_sigmoid(-w) / 2 + log_sigmoid(-x_l) / 2

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        w, x_l = self._pair(batch, winner, loser)
        return self.beta * ((-w).sigmoid() - w.sigmoid() / 2), -self.beta * x_l.sigmoid() / 2


@dataclass(frozen=True)
class Apo(SmoothPair):
    """Anchored preference optimisation (arXiv:2408.06266), x = beta D.

    zero: s(-x_w) + s(x_l), chosen up and rejected down. `down`: s(x_w) + s(x_l - x_w), both down, rejected further.
    """

    name: ClassVar[str] = "apo"
    formula: ClassVar[str] = "zero: c_w = beta s'(x_w), c_l = -beta s'(x_l); down: c_w = beta [s'(x_w - x_l) - s'(x_w)]"

    down: bool = False

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        w, x_l = self._pair(batch, winner, loser)
        return -w.sigmoid() - (x_l - w).sigmoid() if self.down else -(-w).sigmoid() - x_l.sigmoid()

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        w, x_l = self._pair(batch, winner, loser)
        if not self.down:
            return self.beta * bump(w), -self.beta * bump(x_l)
        apart = self.beta * bump(w - x_l)
        return apart - self.beta * bump(w), -apart


def bump(z: Tensor) -> Tensor:
    """s'(z) = s(z) s(-z)."""
    return z.sigmoid() * (-z).sigmoid()


@dataclass(frozen=True)
class Bco(SmoothPair):
    """-log s(x_w - delta) - log s(-(x_l - delta)), x = beta D, delta the batch's mean reward (arXiv:2404.04656).

    delta is half the mean of the chosen plus half the mean of the rejected side, detached, of this batch; the paper
    keeps a running one, and TRL's pair loss in MPO drops it.
    """

    name: ClassVar[str] = "bco"
    formula: ClassVar[str] = "c_w = beta s(-(x_w - delta)), c_l = -beta s(x_l - delta), x = beta D"

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        w, x_l = self._pair(batch, winner, loser)
        delta = self._delta(batch)
        return log_sigmoid(w - delta) + log_sigmoid(delta - x_l)

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        w, x_l = self._pair(batch, winner, loser)
        delta = self._delta(batch)
        return self.beta * (delta - w).sigmoid(), -self.beta * (x_l - delta).sigmoid()

    def _delta(self, batch: TokenBatch) -> Tensor:
        x = self.beta * self.statistic(batch).detach()
        return (x[batch.chosen].mean() + x[batch.rejected].mean()) / 2


@dataclass(frozen=True)
class Sppo(PairLoss):
    """(D - (P - 1/2)/beta)^2 on both answers, P the probability that the answer wins (arXiv:2405.00675; beta 1e-3).

    Hard labels give c_w = 2 (0.5/beta - D_w), c_l = -2 (0.5/beta + D_l). The reference is the iteration's start.
    Not implemented: P estimated over all K answers; the pair's own P is used.
    """

    name: ClassVar[str] = "sppo"
    formula: ClassVar[str] = "c_w = 2 (0.5/beta - D_w), c_l = -2 (0.5/beta + D_l)"

    beta: float = 1e-3

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0.")

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x, target = self.statistic(batch), 0.5 / self.beta
        return -(x[winner] - target).square() - (x[loser] + target).square()

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x, target = self.statistic(batch), 0.5 / self.beta
        return 2 * (target - x[winner]), -2 * (target + x[loser])


@dataclass(frozen=True)
class Mpo(PairLoss):
    """Mixed preference optimisation: 0.8 DPO + 0.2 BCO + 1.0 SFT of the chosen answers (arXiv:2411.10442).

    BCO without delta, as TRL's recipe has it; SFT is averaged over the chosen tokens of the batch.
    """

    name: ClassVar[str] = "mpo"
    formula: ClassVar[str] = "c = 0.8 c_dpo + 0.2 c_bco + 1.0 P/N on chosen tokens"

    beta: float = 0.1
    dpo: float = 0.8
    bco: float = 0.2
    sft: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or min(self.dpo, self.bco, self.sft) < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta > 0 and weights >= 0.")

    def value(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> Tensor:
        x = self.beta * self.statistic(batch)
        sides = log_sigmoid(x[winner]) + log_sigmoid(-x[loser])
        return self.dpo * Dpo(self.beta).value(batch, winner, loser) + self.bco * sides

    def slopes(self, batch: TokenBatch, winner: Tensor, loser: Tensor) -> tuple[Tensor, Tensor]:
        x = self.beta * self.statistic(batch)
        up, down = Dpo(self.beta).slopes(batch, winner, loser)
        beta = self.bco * self.beta
        return self.dpo * up + beta * (-x[winner]).sigmoid(), self.dpo * down - beta * x[loser].sigmoid()

    def likelihood(self, batch: TokenBatch) -> Tensor | None:
        return self.sft * token_likelihood(batch)
