"""Stored feedback in the shapes that other programs read: one JSON object a line.

`trl` and `rewardbench` have one line a preferred pair: people's labels (majority; ties are left out), and of rewards
the best against the worst completion of each group. `kto` has one line a completion. `events` has everything, raw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format

from iterpo import feedback_wire
from iterpo.labeling.feedback import Feedback, Pair
from iterpo.types import Completion, FeedbackEvent, Prompt

DESIRABLE_REWARD = 0.5
"""`kto`: a verifier's reward of at least this much is a thumb up."""

Row = dict[str, Any]


def trl(events: Iterable[FeedbackEvent]) -> Iterator[Row]:
    """TRL's conversational preference format: `prompt`, `chosen`, `rejected`, each a list of messages."""
    for pair in _preferred(events):
        yield {"prompt": _messages(pair.prompt), "chosen": _answer(pair.chosen), "rejected": _answer(pair.rejected)}


def kto(events: Iterable[FeedbackEvent]) -> Iterator[Row]:
    """TRL's unpaired format: `prompt`, `completion`, `label`. Winners are true; losers and both of `both_bad` false;
    a rewarded completion is true from DESIRABLE_REWARD on (meant for verifiers: their rewards lie in [0, 1])."""
    feedback = Feedback.of(events)
    for pair in feedback.label_pairs():
        if not pair.tied:
            yield _thumb(pair.prompt, pair.chosen, True)
            yield _thumb(pair.prompt, pair.rejected, False)
    yield from (_thumb(prompt, completion, False) for prompt, completion in feedback.both_bad())
    for (_, completion_id), value in feedback.rewards.items():
        if completion_id in feedback.completions:
            yield _thumb(*feedback.completions[completion_id], value >= DESIRABLE_REWARD)


def rewardbench(events: Iterable[FeedbackEvent]) -> Iterator[Row]:
    """RewardBench's columns. The models are policy versions, the subset is where the preference came from."""
    for pair in _preferred(events):
        yield {
            "id": f"{pair.preference.group_id}:{pair.chosen.completion_id}:{pair.rejected.completion_id}",
            "prompt": pair.prompt.text,
            "chosen": pair.chosen.text,
            "rejected": pair.rejected.text,
            "chosen_model": f"policy-{pair.chosen.policy_version}",
            "rejected_model": f"policy-{pair.rejected.policy_version}",
            "subset": pair.source,
        }


def raw_events(events: Iterable[FeedbackEvent]) -> Iterator[Row]:
    """Every event as the contract's JSON (StreamFeedbackResponse), token ids and log-probs included."""
    for event in events:
        yield json_format.MessageToDict(feedback_wire.event_to_proto(event), preserving_proto_field_name=True)


FORMATS: Mapping[str, Callable[[Iterable[FeedbackEvent]], Iterator[Row]]] = {
    "trl": trl,
    "kto": kto,
    "rewardbench": rewardbench,
    "events": raw_events,
}


def line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _preferred(events: Iterable[FeedbackEvent]) -> Iterator[Pair]:
    feedback = Feedback.of(events)
    for pair in (*feedback.label_pairs(), *feedback.reward_pairs(best_worst_only=True)):
        if not pair.tied:
            yield pair


def _messages(prompt: Prompt) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _answer(completion: Completion) -> list[Row]:
    return [{"role": "assistant", "content": completion.text}]


def _thumb(prompt: Prompt, completion: Completion, label: bool) -> Row:
    return {"prompt": _messages(prompt), "completion": _answer(completion), "label": label}
