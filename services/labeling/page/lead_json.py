"""What leads see, as JSON. Every number is finite: a browser's JSON knows no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from iterpo.labeling.agreement import Agreement
from iterpo.labeling.annotator import Interval, Profile, Rate
from iterpo.labeling.bradley_terry import Strength
from iterpo.labeling.leads import Report

HISTORY_POINTS = 60
"""Of a sparkline: the latest."""


def report_json(report: Report) -> dict[str, Any]:
    return {
        "counts": asdict(report.counts),
        "labels_by_outcome": dict(report.labels_by_outcome),
        "labels_by_source": dict(report.labels_by_source),
        "agreement": _agreement(report.agreement),
        "machines": {name: _agreement(agreement) for name, agreement in report.machines.items()},
        "policies": [_strength(strength) for strength in report.policies],
    }


def profile_json(profile: Profile, history: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """`history`: (seconds since the epoch, accuracy), oldest first."""
    return {
        "annotator": profile.annotator,
        "state": profile.state.value,
        "reasons": list(profile.reasons),
        "labels": profile.labels,
        "judged": profile.judged,
        "accuracy": _interval(profile.accuracy),
        "gold": _rate(profile.gold),
        "self_consistency": _rate(profile.self_consistency),
        "left_share": _interval(profile.left_share),
        "median_seconds": _finite(profile.median_seconds),
        "too_fast_share": _finite(profile.too_fast_share),
        "weight": _finite(profile.weight),
        "history": [[_finite(at), _finite(accuracy)] for at, accuracy in history[-HISTORY_POINTS:]],
    }


def _agreement(agreement: Agreement) -> Mapping[str, Any]:
    value = None if agreement.value is None else _finite(agreement.value)
    return {"value": value, "undefined_because": agreement.undefined_because, "items": agreement.items}


def _strength(strength: Strength) -> Mapping[str, Any]:
    return {
        "policy": strength.name,
        "strength": _finite(strength.strength),
        "low": _finite(strength.low),
        "high": _finite(strength.high),
        "comparisons": _finite(strength.comparisons),
        "win_rate": _finite(strength.win_rate),
        "note": strength.note,
    }


def _interval(interval: Interval) -> Mapping[str, float | None]:
    return {"mean": _finite(interval.mean), "low": _finite(interval.low), "high": _finite(interval.high)}


def _rate(rate: Rate) -> Mapping[str, int]:
    return {"right": rate.right, "total": rate.total}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
