"""What a method does to every token: one function from an algorithm and a batch to numbers.

The learner's backward and `iterpo explain` both call `token_gradient`, so what is shown is what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iterpo.algorithms import Algorithm
from iterpo.gradient_coefficient import (
    MISMATCH,
    Critical,
    Distributional,
    PolicyGradient,
    Termed,
    TokenBatch,
    off_policy_mask,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenGradient:
    """All tensors [B], detached."""

    coefficients: Tensor
    """c_t in the ascent direction, before the normalizer: method, correction and KL together."""
    gradient: Tensor
    """c_t / N: the gradient of the objective with respect to each token's log-prob."""
    objective: Tensor
    """[] the number whose gradient that is (METHODS' loss, sign turned)."""
    reference_kl: Tensor | None
    """The same for KL(reference; current) over the whole vocabulary, where a regularizer asks for it."""
    metrics: dict[str, float]


def prepared(algorithm: Algorithm, batch: TokenBatch) -> TokenBatch:
    """The batch with what is computed over an iteration's whole batch before minibatches are cut: the KL penalty of
    the reward, and the advantages."""
    batch = replace(batch, penalty=algorithm.kl.penalty(batch))
    coefficient = algorithm.gradient_coefficient
    if isinstance(coefficient, Critical):
        batch = replace(batch, returns=coefficient.returns(batch))
    if isinstance(coefficient, PolicyGradient):
        batch = replace(batch, advantage=coefficient.advantages(batch))
    return batch


def token_gradient(algorithm: Algorithm, batch: TokenBatch) -> TokenGradient:
    """`batch` as `prepared` made it, or a part of it."""
    coefficient, norm = algorithm.gradient_coefficient, algorithm.normalizer(batch)
    correction = _correction(algorithm, batch)
    c = coefficient(batch) * correction
    kl = algorithm.kl.coefficient(batch)
    c = c if kl is None else c + kl
    weights = norm * coefficient.kl_weights(batch) if isinstance(coefficient, Distributional) else None
    metrics = coefficient.metrics(batch) | {"zero_coefficients": float((c == 0).double().mean())}
    if batch.reference is not None:
        metrics["kl_k3"] = float(((-batch.log_ratio).exp() - 1 + batch.log_ratio).mean())
    return TokenGradient(c, c * norm, objective(algorithm, batch), weights, metrics)


def terms(algorithm: Algorithm, batch: TokenBatch) -> dict[str, Tensor]:
    """What a token's number is made of, [B] each: `method` * `correction` + `kl` is the coefficient, times `normalizer`
    the gradient. Before them stands what the method's own number is made of, where it says so."""
    coefficient = algorithm.gradient_coefficient
    own = coefficient.terms(batch) if isinstance(coefficient, Termed) else {}
    kl, method = algorithm.kl.coefficient(batch), coefficient(batch)
    return own | {
        "method": method,
        "correction": _correction(algorithm, batch),
        "kl": method.new_zeros(len(method)) if kl is None else kl,
        "normalizer": algorithm.normalizer(batch),
    }


def objective(algorithm: Algorithm, batch: TokenBatch) -> Tensor:
    """[] sum of normalizer times objective; differentiable where the batch's log-probs are."""
    whole = algorithm.gradient_coefficient.objective(batch) * _correction(algorithm, batch)
    kl = algorithm.kl.objective(batch)
    return (algorithm.normalizer(batch) * (whole if kl is None else whole + kl)).sum()


def _correction(algorithm: Algorithm, batch: TokenBatch) -> Tensor:
    """[B] what the sampler's numerics and age do to the policy gradient; one for likelihoods of given answers, which
    are no expectations under the sampler."""
    weight = MISMATCH[algorithm.mismatch](batch)
    coefficient = algorithm.gradient_coefficient
    if algorithm.off_policy_mask and isinstance(coefficient, PolicyGradient):
        weight = weight * off_policy_mask(batch, coefficient.advantages(batch), algorithm.off_policy_mask).detach()
    return weight
