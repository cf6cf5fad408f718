"""OpenTelemetry spans, where its API is installed and a service was told where to send them; else nothing at all.

A trace follows the answers of one draw: `sample`, `record`, `label`, `update`, `publish`, `prove`, `swap`, with the
calls between the services in between. Groups carry its W3C `traceparent` with them, through the feedback store as well,
so that it goes on in whatever process, after whatever restart. An update of several draws belongs to the oldest
one's trace, and links to the others. Spans hold names, numbers and ids; no prompt, no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # `pip install iterpo[trace]`
    INSTALLED = False
else:
    INSTALLED = True

NAME = "iterpo"
TRACEPARENT = "traceparent"
Attribute = str | int | float | bool


def active() -> bool:
    """Whether this process sends spans anywhere."""
    return INSTALLED and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def span(name: str, within: str = "", links: Sequence[str] = (), **attributes: Attribute) -> Iterator[str]:
    """A span around the block, in the trace `within` (a traceparent; empty: the current one, or a new one). Gives its
    own traceparent; empty when nothing is traced."""
    if not INSTALLED:
        yield ""
        return
    others = [trace.Link(found) for found in map(_span_of, links) if found.is_valid]
    made = trace.get_tracer(NAME).start_span(name, _context(within), attributes=attributes, links=others)
    with _current(made):
        yield headers().get(TRACEPARENT, "")


@contextmanager
def at(traceparent: str) -> Iterator[None]:
    """Within: spans are in this trace."""
    if not INSTALLED or not traceparent:
        yield
        return
    token = contexts.attach(_context(traceparent) or contexts.get_current())
    try:
        yield
    finally:
        contexts.detach(token)


def told(name: str, within: str, began: float, ended: float, **attributes: Attribute) -> None:
    """A span of what is over, seconds since the epoch; none where its trace is unknown."""
    if INSTALLED and within:
        made = trace.get_tracer(NAME).start_span(
            name, _context(within), attributes=attributes, start_time=int(began * 1e9)
        )
        made.end(int(max(began, ended) * 1e9))


@contextmanager
def served(name: str, caller: Mapping[str, str], current: bool) -> Iterator[None]:
    """A server's span around a call, in its caller's trace. `current`: what the handler does is within it, which a
    generator's context cannot promise."""
    if not INSTALLED:
        yield
        return
    parent = TraceContextTextMapPropagator().extract(dict(caller))
    made = trace.get_tracer(NAME).start_span(name, parent, kind=trace.SpanKind.SERVER)
    with _current(made) if current else _ending(made):
        yield


def headers() -> dict[str, str]:
    """What a call takes along to be in the current trace."""
    found: dict[str, str] = {}
    if INSTALLED:
        TraceContextTextMapPropagator().inject(found)
    return found


def trace_id() -> str:
    """Of the current trace, for logs; empty: none."""
    found = trace.get_current_span().get_span_context() if INSTALLED else None
    return trace.format_trace_id(found.trace_id) if found and found.is_valid else ""


@contextmanager
def _current(made: Any) -> Iterator[None]:
    with trace.use_span(made, record_exception=False, set_status_on_exception=False), _ending(made):
        yield


@contextmanager
def _ending(made: Any) -> Iterator[None]:
    """Of an error the span holds the kind alone: its text may quote what somebody asked."""
    try:
        yield
    except Exception as error:
        made.set_status(trace.StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        made.end()


def _context(traceparent: str) -> Any:
    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}) if traceparent else None


def _span_of(traceparent: str) -> Any:
    return trace.get_current_span(_context(traceparent)).get_span_context()
