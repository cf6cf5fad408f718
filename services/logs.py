"""The services' logs: lines for people, or JSON with what each line belongs to. No text of a prompt or an answer is in
either at the default level.

    {"time": "2026-11-28T09:12:28.123Z", "level": "WARNING", "service": "learner", "logger": "services.learner.runs",
     "message": "...", "run": "grpo-1", "request_id": "..."}
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TextIO

from iterpo import tracing

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))  # read-only
FIELDS = {"request_id": "request_id", "run_id": "run", "run": "run", "version": "policy_version", "policy": "policy"}
"""Of a request -> in the log."""


@contextmanager
def about(**what: str) -> Iterator[None]:
    """Within: every line of this thread or task, and of tasks begun here, says so."""
    before = _about.get()
    _about.set({**before, **what})
    try:
        yield
    finally:
        _about.set(before)  # not by a token: a generator may be closed in another context than it was begun in


def named(request: Any) -> dict[str, str]:
    """What a gRPC request says of itself; nothing of a stream of them."""
    found = [(name, getattr(request, field, "")) for field, name in FIELDS.items()]
    return {name: str(value) for name, value in found if value and isinstance(value, str | int)}


def told() -> dict[str, str]:
    """What `about` says here."""
    return dict(_about.get())


class JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        if trace_id := tracing.trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Stderr(logging.StreamHandler[TextIO]):
    """Ours, to be told from those of a program that runs a service within itself, as tests do."""


def start(service: str, form: str = "text") -> None:
    """To standard error, unless the process logs elsewhere already. Again with another `form`: from now on."""
    if not logging.root.handlers:
        logging.basicConfig(level=logging.INFO, handlers=[Stderr(sys.stderr)])
    for handler in logging.root.handlers:
        if isinstance(handler, Stderr):
            handler.setFormatter(JsonLines(service) if form == "json" else logging.Formatter(TEXT))
