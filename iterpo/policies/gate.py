"""Whether a proved candidate may serve: numbers in, a recorded decision out (invariant 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from iterpo.run_config import GateConfig
from iterpo.types import GateDecision


def decide(
    config: GateConfig, heldout_candidate: float, heldout_serving: float, kl: float, update: Mapping[str, float]
) -> GateDecision:
    """Judge a candidate by its held-out reward against the serving version's, its KL and the update's own numbers.

    `kl` is nats a token to the base model. Held-out rewards are means over the same prompts; a labeler that abstained
    on all of them gives NaN, which promotes nothing.
    """
    gain = heldout_candidate - heldout_serving
    numbers = {
        "heldout_candidate": heldout_candidate,
        "heldout_serving": heldout_serving,
        "heldout_gain": gain,
        "kl": kl,
        **{f"update_{name}": value for name, value in update.items()},
    }
    reasons = [f"{name} is {value}, not a finite number" for name, value in numbers.items() if not math.isfinite(value)]
    if gain < config.min_heldout_gain:
        reasons.append(f"held-out reward changes by {gain:+.3f}, below gate.min_heldout_gain {config.min_heldout_gain}")
    if kl > config.max_kl:
        reasons.append(f"KL {kl:.3f} nats a token exceeds gate.max_kl {config.max_kl}")
    return GateDecision(not reasons, tuple(reasons), numbers)
