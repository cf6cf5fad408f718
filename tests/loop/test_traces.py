"""One trace from a prompt to the swap, whichever loop goes through it, and whatever crashes in between."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from iterpo import tracing, wire
from iterpo.intake import Collected
from iterpo.types import Completion, FinishReason, Group, Progress
from tests.loop.fakes import RUN, Crash, prompt

JOURNEY = ["sample", "record", "label", "label", "update", "publish", "prove", "swap"]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    return exporter


def traces(spans: InMemorySpanExporter) -> dict[int, list[str]]:
    """Trace -> its spans' names, by their start."""
    found: dict[int, list[str]] = {}
    for span in sorted(spans.get_finished_spans(), key=lambda s: (s.name != "sample", JOURNEY.index(s.name))):
        found.setdefault(span.context.trace_id, []).append(span.name)
    return found


def test_an_iterations_trace_goes_from_prompt_to_swap(make_run, spans) -> None:
    make_run(iterations=2).finish()
    assert list(traces(spans).values()) == [JOURNEY, JOURNEY]


def test_so_does_that_of_a_pipeline_whose_loops_are_threads(make_run, spans) -> None:
    make_run(iterations=3, ahead=1).finish()
    journeys = list(traces(spans).values())
    assert Counter(chain.from_iterable(journeys)) == Counter(JOURNEY * 3)
    assert all(journey[0] == "sample" for journey in journeys)


def test_a_refused_candidate_ends_its_trace(make_run, spans) -> None:
    make_run(iterations=1, gate={"max_kl": 0.01}).finish()
    assert [s.name for s in spans.get_finished_spans() if s.name in ("swap", "refuse")] == ["refuse"]


def test_spans_hold_ids_and_numbers_and_no_text(make_run, spans) -> None:
    run = make_run(iterations=1)
    run.finish()
    texts = {m.content for i in range(6) for m in prompt(i).messages}
    for span in spans.get_finished_spans():
        told = [str(value) for value in (span.attributes or {}).values()]
        assert not [text for text in texts for value in told if text in value]
    [update] = [s for s in spans.get_finished_spans() if s.name == "update"]
    assert dict(update.attributes or {}) == {"run": RUN, "iteration": 1}


def test_of_an_error_a_span_holds_the_kind_and_not_the_text(spans) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("sample"):
        raise ValueError("a secret prompt")
    with pytest.raises(ValueError, match="secret"), tracing.served("Sample", {}, current=True):
        raise ValueError("a secret prompt")
    for span in spans.get_finished_spans():
        assert (span.status.is_ok, span.status.description, span.events) == (False, "ValueError", ())


def test_an_update_of_two_draws_is_in_the_older_ones_trace_and_links_to_the_other(spans) -> None:
    with tracing.span("sample") as first:
        pass
    with tracing.span("sample") as second:
        pass
    with tracing.span("update", first, [second]):
        pass
    one, other, update = spans.get_finished_spans()
    assert update.context.trace_id == one.context.trace_id != other.context.trace_id
    assert [link.context.span_id for link in update.links] == [other.context.span_id]


def test_answers_that_come_without_a_trace_do_not_hide_the_others() -> None:
    sampled = [Group(name, prompt(0), (), trace=name) for name in ("", "one", "", "two", "one")]
    assert Collected(Progress(), sampled).traces == ["one", "two"]
    assert Collected(Progress(), sampled[:1]).traces == [""]


def test_what_is_told_afterwards_has_its_own_times(spans) -> None:
    with tracing.span("sample") as trace:
        pass
    tracing.told("label", trace, 10.0, 12.5, group="g")
    label = spans.get_finished_spans()[-1]
    assert (label.start_time, label.end_time) == (10_000_000_000, 12_500_000_000)


def test_after_a_crash_between_recording_and_learning_the_trace_that_the_events_name_goes_on(make_run, spans) -> None:
    run = make_run(iterations=1)
    run.faults.planned = {("update", 1, "before"): Crash()}
    assert run.finish_despite_crashes() == 1
    [names] = traces(spans).values()
    assert names == ["sample", "record", *["label"] * 4, "update", "update", "publish", "prove", "swap"]


def test_a_group_keeps_its_trace_on_the_wire() -> None:
    completion = Completion("c", "p", "g", "yes", (1,), (2,), (-0.5,), FinishReason.STOP, 0, "")
    group = Group("g", prompt(0), (completion,), trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert wire.group_from_proto(wire.group_to_proto(group)) == group


def test_without_a_provider_nothing_is_traced_and_everything_runs(make_run) -> None:
    run = make_run(iterations=1)
    run.finish()
    assert [event.group.trace for event in run.feedback.stream(RUN, 0, 0) if event.group] == ["", ""]
    assert tracing.headers() == {}
    assert tracing.trace_id() == ""
