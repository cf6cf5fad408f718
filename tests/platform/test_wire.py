"""What the wire may carry and the domain cannot hold is refused as invalid input, whatever a client sends."""

from __future__ import annotations

import math

import pytest

from iterpo import feedback_wire, wire
from iterpo.errors import InvalidInput
from iterpo.types import FinishReason, Outcome
from iterpo.v1 import types_pb2


@pytest.mark.parametrize("number", [0, 99])
def test_an_outcome_that_nobody_knows_is_invalid_input(number: int) -> None:
    with pytest.raises(InvalidInput, match=f"known.*{number}.*FIRST"):
        feedback_wire.outcome_from_proto(types_pb2.Label(outcome=number).outcome)


@pytest.mark.parametrize("number", [0, 99])
def test_a_finish_reason_that_nobody_knows_is_invalid_input(number: int) -> None:
    with pytest.raises(InvalidInput, match=f"known.*{number}.*STOP"):
        wire.finish_reason_from_proto(types_pb2.Completion(finish_reason=number).finish_reason)


def test_every_outcome_and_finish_reason_survives_the_wire() -> None:
    assert [feedback_wire.outcome_from_proto(feedback_wire.outcome_to_proto(o)) for o in Outcome] == list(Outcome)
    assert [wire.finish_reason_from_proto(wire.finish_reason_to_proto(r)) for r in FinishReason] == list(FinishReason)


@pytest.mark.parametrize("field", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sampling_settings_that_are_no_numbers_are_invalid_input(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        wire.sampling_from_proto(types_pb2.SamplingSettings(**{field: value}))


def test_an_empty_stop_string_is_invalid_input() -> None:
    assert wire.sampling_from_proto(types_pb2.SamplingSettings(stop=["\n"])).stop == ("\n",)
    with pytest.raises(InvalidInput, match="stop string is empty"):
        wire.sampling_from_proto(types_pb2.SamplingSettings(stop=["\n", ""]))
