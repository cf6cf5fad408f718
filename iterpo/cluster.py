"""Which services a cluster has, and what differs from one to the next: the very services of one box, more of them.

inference, labeling, learner     as iterpo.toml says: everybody finds them there
inference-2, ...                 follow the first; the learner's draws are shared out over them
labeling-2, ...                  on the same PostgreSQL store
"""

from __future__ import annotations

from dataclasses import dataclass

from iterpo.config import SERVICES, Settings
from iterpo.errors import InvalidConfig
from iterpo.store.address import is_postgresql


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    service: str
    """`inference`, `labeling` or `learner`."""
    cpus: float
    gpus: float
    changes: tuple[str, ...] = ()
    """Of the settings, `KEY=VALUE`; `{host}` and `{port}` stand for what is free where it is started."""

    @property
    def is_first(self) -> bool:
        return self.name == self.service


def members(settings: Settings) -> list[Member]:
    """Raises InvalidConfig (STORE_NOT_SHARED) for several labeling servers on a file."""
    cluster = settings.cluster
    if cluster.labeling > 1 and not is_postgresql(settings.labeling.store):
        raise InvalidConfig(
            f"cluster.labeling is {cluster.labeling}, and labeling.store is a file, which one server alone may open.",
            "Set labeling.store to a postgresql:// address (iterpo store copy brings the labels along).",
            "STORE_NOT_SHARED",
        )
    needs = {
        "inference": (cluster.inference_cpus, cluster.inference_gpus),
        "labeling": (cluster.labeling_cpus, 0.0),
        "learner": (cluster.learner_cpus, cluster.learner_gpus),
    }
    found = [Member(name, name, *needs[name]) for name in SERVICES]
    for number in range(2, cluster.inference + 1):
        home = settings.data_dir / "cluster" / f"inference-{number}"
        followed = settings.inference.address
        own = [
            f"data_dir={home}",
            f"inference.follow={followed}",
            "inference.metrics_address=",
            "inference.http_address=",
        ]
        found.append(_another("inference", number, needs["inference"], own))
    for number in range(2, cluster.labeling + 1):
        own = ["labeling.metrics_address=", "labeling.page_address="]
        found.append(_another("labeling", number, needs["labeling"], own))
    return found


def _another(service: str, number: int, needs: tuple[float, float], own: list[str]) -> Member:
    place = [f"{service}.address={{host}}:{{port}}", f"{service}.listen="]
    return Member(f"{service}-{number}", service, *needs, tuple(place + own))
