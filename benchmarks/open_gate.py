"""A gate that lets everything through: what a method does, or a sabotage, is measured, not stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANYTHING: Mapping[str, Any] = {
    "min_heldout_gain": -1.0,
    "min_slice_gain": -1.0,
    "min_gold_gain": -1.0,
    "min_win_rate": 0.0,
    "max_kl": 100.0,
    "max_length_ratio": 100.0,
    "max_unfinished_gain": 1.0,
    "max_refusal_gain": 1.0,
    "max_same_answer_gain": 1.0,
    "max_relative_norm": 100.0,
}
"""All bounds that a run may set (iterpo.run_config.GateConfig), as wide as they go."""
