"""Axis 3, how much: one number c_t for every sampled token, in the ascent direction.

    grad J = 1/N * sum_t c_t * grad log pi(y_t | x, y_<t)

A coefficient is a frozen dataclass whose fields are its hyper-parameters (defaults: the published setting) and whose
call maps a `TokenBatch` to `[B]` numbers. `needs` names what it must be given; `iterpo.algorithms.check` compares it
with what the response sampler provides. Nothing here needs autograd: the learner does one backward for all of them.
Beside it stand, each by name, the normalizer (1/N), a KL to the reference, and the trainer/sampler correction.
"""

from iterpo.gradient_coefficient.batch import Coefficient, Critical, Distributional, Termed, TokenBatch
from iterpo.gradient_coefficient.cispo import Cispo, Sapo
from iterpo.gradient_coefficient.dpo import Dpo, Dpop, LengthDpo, OffsetDpo, Tdpo, Tipo, Xpo
from iterpo.gradient_coefficient.grpo import Grpo
from iterpo.gradient_coefficient.kl import Kl
from iterpo.gradient_coefficient.kto import Kto
from iterpo.gradient_coefficient.mismatch import MISMATCH, off_policy_mask
from iterpo.gradient_coefficient.nash_md import NashMd
from iterpo.gradient_coefficient.normalizer import NORMALIZERS, Constant, Normalizer, PerSequence, PerToken, SequenceSum
from iterpo.gradient_coefficient.pass_at_k import PassAtK
from iterpo.gradient_coefficient.policy_gradient import PolicyGradient
from iterpo.gradient_coefficient.ppo import Ppo
from iterpo.gradient_coefficient.preference import Apo, Bco, Cpo, Exo, Ipo, Mpo, Nca, Orpo, Simpo, Slic, SlicHf, Sppo
from iterpo.gradient_coefficient.regression import AStarPo, Balance, Mirror
from iterpo.gradient_coefficient.reinforce import Reinforce
from iterpo.gradient_coefficient.sequence_ratio import Gmpo, Gspo, Rloo
from iterpo.gradient_coefficient.sft import Dft, Sft

_ALL: tuple[type[Coefficient], ...] = (
    *(Sft, Dft, Reinforce, Grpo, Rloo, Gspo, Gmpo, Cispo, Sapo, Ppo, PassAtK, Mirror, AStarPo, Balance),
    *(
        Dpo,
        LengthDpo,
        Dpop,
        OffsetDpo,
        Tipo,
        Xpo,
        Tdpo,
        Ipo,
        Slic,
        SlicHf,
        Simpo,
        Cpo,
        Orpo,
        Exo,
        Nca,
        Apo,
        Bco,
        Sppo,
        Mpo,
    ),
    *(Kto, NashMd),
)
COEFFICIENTS: dict[str, type[Coefficient]] = {c.name: c for c in _ALL}

__all__ = [
    "COEFFICIENTS",
    "MISMATCH",
    "NORMALIZERS",
    "AStarPo",
    "Apo",
    "Balance",
    "Bco",
    "Cispo",
    "Coefficient",
    "Constant",
    "Cpo",
    "Critical",
    "Dft",
    "Distributional",
    "Dpo",
    "Dpop",
    "Exo",
    "Gmpo",
    "Grpo",
    "Gspo",
    "Ipo",
    "Kl",
    "Kto",
    "LengthDpo",
    "Mirror",
    "Mpo",
    "NashMd",
    "Nca",
    "Normalizer",
    "OffsetDpo",
    "Orpo",
    "PassAtK",
    "PerSequence",
    "PerToken",
    "PolicyGradient",
    "Ppo",
    "Reinforce",
    "Rloo",
    "Sapo",
    "SequenceSum",
    "Sft",
    "Simpo",
    "Slic",
    "SlicHf",
    "Sppo",
    "Tdpo",
    "Termed",
    "Tipo",
    "TokenBatch",
    "Xpo",
    "off_policy_mask",
]
