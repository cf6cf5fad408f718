"""Whether a proved candidate may serve: numbers in, a recorded decision out (invariant 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from iterpo.run_config import GateConfig
from iterpo.types import GateDecision


def decide(
    config: GateConfig, heldout: tuple[float, float] | None, kl: float, update: Mapping[str, float]
) -> GateDecision:
    """Judge a candidate by its held-out reward against the serving version's, its KL and the update's own numbers.

    `heldout` is (candidate, serving): means over the same prompts, or None when nobody judges them (people label, and
    no `gate.labeler` is set). A labeler that abstained on all gives NaN, which promotes nothing. `kl` is nats a token
    to the base model.
    """
    numbers = {"kl": kl, **{f"update_{name}": value for name, value in update.items()}}
    if heldout is not None:
        candidate, serving = heldout
        numbers |= {"heldout_candidate": candidate, "heldout_serving": serving, "heldout_gain": candidate - serving}
    reasons = [f"{name} is {value}, not a finite number" for name, value in numbers.items() if not math.isfinite(value)]
    if numbers.get("heldout_gain", 0.0) < config.min_heldout_gain:
        gain = numbers["heldout_gain"]
        reasons.append(f"held-out reward changes by {gain:+.3f}, below gate.min_heldout_gain {config.min_heldout_gain}")
    if kl > config.max_kl:
        reasons.append(f"KL {kl:.3f} nats a token exceeds gate.max_kl {config.max_kl}")
    return GateDecision(not reasons, tuple(reasons), numbers)
