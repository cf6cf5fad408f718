"""Axis 3, how much: one number c_t for every sampled token, in the ascent direction.

    grad J = 1/N * sum_t c_t * grad log pi(y_t | x, y_<t)

A coefficient is a frozen dataclass whose fields are its hyper-parameters (defaults: the published setting) and whose
call maps a `TokenBatch` to `[B]` numbers. `needs` names what it must be given; `iterpo.algorithms.check` compares it
with what the response sampler provides. Nothing here needs autograd: the learner does one backward for all of them.
"""

from iterpo.gradient_coefficient.batch import Coefficient, TokenBatch
from iterpo.gradient_coefficient.dpo import Dpo
from iterpo.gradient_coefficient.grpo import Grpo
from iterpo.gradient_coefficient.mismatch import MISMATCH
from iterpo.gradient_coefficient.normalizer import NORMALIZERS, Constant, Normalizer, PerSequence, PerToken, SequenceSum
from iterpo.gradient_coefficient.sft import Sft

COEFFICIENTS: dict[str, type[Coefficient]] = {c.name: c for c in (Sft, Grpo, Dpo)}

__all__ = [
    "COEFFICIENTS",
    "MISMATCH",
    "NORMALIZERS",
    "Coefficient",
    "Constant",
    "Dpo",
    "Grpo",
    "Normalizer",
    "PerSequence",
    "PerToken",
    "SequenceSum",
    "Sft",
    "TokenBatch",
]
