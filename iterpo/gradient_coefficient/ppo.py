"""PPO with a critic, and VAPO's changes to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient.advantage import generalised, whiten
from iterpo.gradient_coefficient.batch import TokenBatch
from iterpo.gradient_coefficient.grpo import Grpo

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ppo(Grpo):
    """c = A rho 1[not clipped] with A from GAE over the critic's values (arXiv:1707.06347; METHODS section 3).

    The reward stands at the last token, less beta times the KL estimate at every token when KL is in the reward.
    Returns are A + V before A is whitened. The critic's own loss is the regularizer `clipped_value_loss`.
    VAPO (arXiv:2504.05118): `lam` 0 takes 1 - 1/(alpha n), the critic learns with lambda 1, and `positive_nll` adds mu
    to every token of a right answer (reward above 1/2), under the normalizer and correction of the policy's loss.
    Not implemented: VAPO's value pre-training as a phase of its own.
    """

    name: ClassVar[str] = "ppo"
    formula: ClassVar[str] = "c_t = A_t rho_t 1[not clipped] (+ mu on right answers), A from GAE, whitened"

    advantage: str = "raw"
    """Not used: the critic is the baseline."""
    gamma: float = 1.0
    lam: float = 0.95
    """GAE's lambda; 0 makes it follow the length."""
    length_alpha: float = 0.05
    critic_lam: float = 0.0
    """Lambda of the critic's returns; 0 takes the policy's."""
    whitened: bool = True
    positive_nll: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage != "raw":
            raise InvalidConfig(f"{self.name} has an advantage of its own.", "Remove gradient_coefficient.advantage.")
        if not (0 < self.gamma <= 1 and 0 <= self.lam <= 1 and 0 <= self.critic_lam <= 1) or self.length_alpha <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use 0 < gamma <= 1, 0 <= lam <= 1, length_alpha > 0.")
        if self.positive_nll < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use positive_nll >= 0.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"completions", "rewards", "values"})

    @property
    def needs_a_group(self) -> bool:
        return False

    def token_rewards(self, batch: TokenBatch) -> Tensor:
        """[B] the reward at each sequence's last token, less the KL penalty of every token."""
        last = batch.position == batch.spread(batch.lengths) - 1
        reward = batch.spread(self.shaped(batch)) * last
        return reward if batch.penalty is None else reward - batch.penalty

    def returns(self, batch: TokenBatch) -> Tensor:
        """[B] what the critic learns: A + V, before any whitening."""
        lam = batch.reward.new_full(batch.reward.shape, self.critic_lam) if self.critic_lam else self._lam(batch)
        advantage = generalised(batch, self.token_rewards(batch), self.gamma, lam)
        return advantage if batch.values is None else advantage + batch.values

    def advantages(self, batch: TokenBatch) -> Tensor:
        if batch.advantage is not None:
            return batch.advantage
        advantage = generalised(batch, self.token_rewards(batch), self.gamma, self._lam(batch))
        return whiten(advantage) if self.whitened else advantage

    def _lam(self, batch: TokenBatch) -> Tensor:
        """[S]."""
        if self.lam:
            return batch.reward.new_full(batch.reward.shape, self.lam)
        return (1 - 1 / (self.length_alpha * batch.lengths.to(batch.reward.dtype))).clamp(min=0)

    def weigh(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return super().weigh(batch, advantage) + self._imitation(batch)

    def surrogate(self, batch: TokenBatch, advantage: Tensor) -> Tensor:
        return super().surrogate(batch, advantage) + self._imitation(batch) * batch.logprobs

    def metrics(self, batch: TokenBatch) -> dict[str, float]:
        """Of the policy gradient alone: imitated tokens would never look clipped."""
        return super(Ppo, replace(self, positive_nll=0.0)).metrics(batch)

    def _imitation(self, batch: TokenBatch) -> Tensor:
        return self.positive_nll * batch.spread((batch.reward > 0.5).to(batch.reward.dtype))
