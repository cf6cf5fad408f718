"""What inference services tell each other: the primary what serves, a replica what it has proved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from iterpo.policies.canary import Arm
from iterpo.types import BASE_VERSION, PolicyVersion


@dataclass(frozen=True)
class View:
    """The primary's policies, whole."""

    base_digest: str
    policies: Sequence[PolicyVersion]
    """Proved, canary, serving, previous, and the latest that were refused."""
    serving: int = BASE_VERSION
    previous: int = BASE_VERSION
    candidate: int = 0
    """What may be promoted next: the version that a promotion waits for, else the newest that is proved. 0: none."""
    canary: int = 0
    """0: none."""
    canary_share: float = 0.0
    heads: Mapping[str, int] = field(default_factory=dict)
    """Run -> its version, of the runs beside what serves."""


@dataclass(frozen=True)
class Report:
    """Where a replica stands."""

    replica: str
    serving: int = BASE_VERSION
    proved: Mapping[int, str] = field(default_factory=dict)
    """Version -> digest."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Version -> reason."""
    canary_version: int = 0
    """Whose test the counts are for."""
    canary: Arm = field(default_factory=Arm)
    others: Arm = field(default_factory=Arm)
    """Live requests of the version that serves, since the canary began."""
    address: str = ""
    """Where clients find it; empty when it did not say."""


class Quorum(StrEnum):
    REACHED = "reached"
    OPEN = "open"
    MISSED = "missed"
    """Too many refused it."""


def quorum(version: int, digest: str, reports: Sequence[Report], share: float) -> Quorum:
    """Whether enough of the connected replicas have proved these bytes of a version: `share` of them, rounded up."""
    needed = math.ceil(share * len(reports) - 1e-9)
    proved = sum(report.proved.get(version) == digest for report in reports)
    refused = sum(version in report.refused for report in reports)
    if proved >= needed:
        return Quorum.REACHED
    return Quorum.MISSED if len(reports) - refused < needed else Quorum.OPEN
