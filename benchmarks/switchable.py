"""`python -m benchmarks.switchable`: the inference service, whose instruments can be switched off and on while it runs.

SIGUSR2: nothing is counted, observed or set any more, and calls are not watched; SIGUSR1: everything again.
benchmarks.overhead compares the two within one process and one engine.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from services import host
from services.call_metrics import CallMetrics

METHODS = ((Counter, "inc"), (Counter, "labels"), (Gauge, "inc"), (Gauge, "dec"), (Gauge, "set"), (Gauge, "labels"))
METHODS += ((Histogram, "observe"), (Histogram, "labels"))


class Nothing:
    """A metric that does nothing."""

    def labels(self, *_: Any, **__: Any) -> Nothing:
        return self

    def inc(self, *_: Any, **__: Any) -> None: ...

    dec = set = observe = inc


class Switch:
    on = True

    def guard(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @asynccontextmanager
        async def guard(*arguments: Any) -> AsyncIterator[None]:
            if not self.on:
                yield
                return
            async with real(*arguments):
                yield

        return guard

    def method(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def method(metric: Any, *arguments: Any, **named: Any) -> Any:
            if self.on:
                return real(metric, *arguments, **named)
            return Nothing() if name == "labels" else None

        return method


def main() -> int:
    switch = Switch()
    for kind, name in METHODS:
        setattr(kind, name, switch.method(getattr(kind, name), name))
    CallMetrics.guard = switch.guard(CallMetrics.guard)  # type: ignore[method-assign]
    host.trace_guard = switch.guard(host.trace_guard)  # type: ignore[assignment]
    for number, on in ((signal.SIGUSR1, True), (signal.SIGUSR2, False)):
        signal.signal(number, lambda *_, on=on: setattr(switch, "on", on))
    from services.inference.__main__ import main as inference

    return inference()


if __name__ == "__main__":
    sys.exit(main())
