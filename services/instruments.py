"""A service's metrics, each with what it means and what to do when it is off: docs/operations.md is made from that.

    made = Instruments(registry)
    self.tokens = made.counter("iterpo_inference_tokens_total", "Tokens generated.", "None while ...", ["call"])

Names, units and suffixes follow Prometheus' rules; `promtool check metrics` says so in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNITS = ("seconds", "bytes", "ratio", "nats", "tokens", "versions")


@dataclass(frozen=True)
class Described:
    name: str
    """As Prometheus shows it; of a histogram without `_bucket`, `_sum` and `_count`."""
    kind: str
    meaning: str
    when_off: str
    labels: tuple[str, ...]

    @property
    def unit(self) -> str:
        """From the name's last word; what has none is a count, or a number without a unit."""
        word = self.name.removesuffix("_total").rpartition("_")[2]
        return word if word in UNITS else ""


class Instruments:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.described: list[Described] = []

    def counter(self, name: str, meaning: str, when_off: str, labels: Sequence[str] = ()) -> Counter:
        self.collected("counter", name, meaning, when_off, labels)
        return Counter(name, meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, when_off: str, labels: Sequence[str] = ()) -> Gauge:
        self.collected("gauge", name, meaning, when_off, labels)
        return Gauge(name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, when_off: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        self.collected("histogram", name, meaning, when_off, labels)
        return Histogram(name, meaning, labels, registry=self.registry, buckets=buckets)

    def collected(self, kind: str, name: str, meaning: str, when_off: str, labels: Sequence[str] = ()) -> None:
        """One that a collector of its own shows."""
        self.described.append(Described(name, kind, meaning, when_off, tuple(labels)))


def watch_disk(made: Instruments, folder: Path) -> None:
    """Where a service writes."""
    full = "Below a tenth: remove old policies and logs, or move data_dir. At zero labels are refused (DISK_FULL)."
    free = made.gauge("iterpo_disk_free_bytes", "Free on the disk of data_dir.", full)
    what = "Of the disk of data_dir: used and free together, as in df's Use%. What is kept back for root is left out."
    size = made.gauge("iterpo_disk_size_bytes", what, "It hardly changes by itself.")
    free.set_function(lambda: psutil.disk_usage(str(folder)).free)
    size.set_function(lambda: usable_bytes(folder))


def usable_bytes(folder: Path) -> int:
    """Used and free together: what a file system keeps back, for root or beyond a quota, fills up for nobody."""
    found = psutil.disk_usage(str(folder))
    return int(found.used + found.free)
