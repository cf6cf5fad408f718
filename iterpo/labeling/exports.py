"""Stored feedback in the shapes that other programs read: one JSON object a line.

`trl` and `rewardbench` have one line a preferred pair: people's preferences (ties are left out), and of rewards the
best against the worst completion of each group. `kto` has one line a completion. `events` has everything, raw.
`parquet` is a folder that `datasets.load_dataset` reads: one row a compared pair, ties too, with its labels.
The order is the store's, so the same events give the same files. Annotators are written as pseudonyms, which one key
makes the same in every export; machines keep their names.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf import json_format

from iterpo import feedback_wire
from iterpo.labeling.annotator import MACHINE
from iterpo.labeling.feedback import Feedback, Pair
from iterpo.types import USER, Completion, FeedbackEvent, Label, Prompt

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


def pair_rows(events: Iterable[FeedbackEvent]) -> Iterator[Row]:
    """One row a compared pair, for `parquet`: what its labels say together, and each of them."""
    feedback = Feedback.of(events)
    labels: dict[str, list[Row]] = {}
    for label in feedback.labels.values():
        labels.setdefault(label.task_id, []).append(_label(label))
    for preference in feedback.preferences.values():
        if preference.group_id in feedback.groups:
            prompt, first = feedback.completions[preference.first_id]
            _, second = feedback.completions[preference.second_id]
            yield {
                "task_id": preference.task_id,
                "prompt": _messages(prompt),
                "first": first.text,
                "second": second.text,
                "p_first_wins": preference.p_first_wins,
                "weight": preference.weight,
                "strength": preference.strength,
                "p_both_bad": preference.p_both_bad,
                "first_policy_version": first.policy_version,
                "second_policy_version": second.policy_version,
                "labels": labels.get(preference.task_id, []),
            }


class Pseudonyms:
    """Annotators' names -> `annotator-` and ten digits of a keyed digest (HMAC-SHA-256): without the key nobody can try
    names out, with it every export uses the same ones."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, name: str) -> str:
        if not name or MACHINE in name:
            return name
        return f"annotator-{hmac.new(self._key, name.encode(), 'sha256').hexdigest()[:10]}"

    def hide(self, events: Iterable[FeedbackEvent]) -> Iterator[FeedbackEvent]:
        """The same events, nobody's name in them. Free text (rationales, reasons) is left as it was written."""
        return map(self._hidden, events)

    def _hidden(self, event: FeedbackEvent) -> FeedbackEvent:
        for kind in ("label", "retraction", "standing", "release"):
            body = getattr(event, kind)
            if body is not None:
                changes = {"annotator": self.of(body.annotator)}
                if kind == "standing":
                    changes["by"] = self.of(body.by)
                return replace(event, **{kind: replace(body, **changes)})
        if event.reward is not None and event.reward.user:
            return replace(event, reward=replace(event.reward, labeler=USER + self.of(event.reward.user)))
        if event.task is not None:
            first, second = self._written(event.task.first), self._written(event.task.second)
            only_for = self.of(event.task.only_for)
            return replace(event, task=replace(event.task, first=first, second=second, only_for=only_for))
        if event.group is not None:
            completions = tuple(map(self._written, event.group.completions))
            return replace(event, group=replace(event.group, completions=completions))
        return event

    def _written(self, completion: Completion) -> Completion:
        return replace(completion, author=self.of(completion.author)) if completion.author else completion


FORMATS: Mapping[str, Callable[[Iterable[FeedbackEvent]], Iterator[Row]]] = {
    "trl": trl,
    "kto": kto,
    "rewardbench": rewardbench,
    "events": raw_events,
}


def line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def _label(label: Label) -> Row:
    return {
        "annotator": label.annotator,
        "outcome": label.outcome.value,
        "strength": label.strength,
        "rationale": label.rationale,
        "presented_swapped": label.presented_swapped,
        "duration_seconds": label.duration_seconds,
        "guideline_version": label.guideline_version,
        "propensity": label.propensity,
        "aspects": [{"aspect": name, "outcome": outcome.value} for name, outcome in label.aspects.items()],
    }


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
