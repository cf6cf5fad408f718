"""Feedback of an application's own users: which of two served answers they kept, a thumb, an edited answer.

A user is an annotator like any other: measured, capped, and taken out again when need be. What was served is recorded
with the feedback, as a group of its own with fresh ids, so that it never completes or disturbs a group that a run
waits for. Kept and edited answers become a label and its preference; a thumb is a reward of 1 or 0 whose labeler is
`user:NAME`; of a quarantined user, an abstention.
"""

from __future__ import annotations

import uuid
from concurrent.futures import Future
from dataclasses import dataclass, replace

from iterpo import wire
from iterpo.errors import InvalidInput, WrongState
from iterpo.labeling.people import PeopleDesk
from iterpo.store.connection import Connection
from iterpo.store.groups import find_completions, record_group
from iterpo.store.labels import Accepted, label_directly
from iterpo.store.tasks import add_task
from iterpo.store.transaction import Answer, Transaction, payload
from iterpo.types import (
    BASE_VERSION,
    USER,
    Abstention,
    AnnotatorState,
    Completion,
    FinishReason,
    Group,
    Outcome,
    Prompt,
    Reward,
    Task,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The user kept one of two answers."""

    completion_id: str
    over_completion_id: str
    strength: int = 0


@dataclass(frozen=True, slots=True)
class Thumb:
    completion_id: str
    up: bool


@dataclass(frozen=True, slots=True)
class Edited:
    """The user wrote a better answer: it beats the original."""

    completion_id: str
    text: str


Verdict = Kept | Thumb | Edited


class ApplicationDesk:
    def __init__(self, people: PeopleDesk) -> None:
        self._people = people

    def submit(self, run_id: str, user: str, verdict: Verdict, served: Group | None, request_id: str) -> Future[Answer]:
        """Ids: the events, the group's first. `served` holds the answers that the verdict speaks of; without it they
        must have been recorded before.

        InvalidInput (NOT_SERVED), NotFound and WrongState (ANNOTATOR_EXCLUDED) arrive through the future.
        """
        content = payload(
            "feedback", run_id, user, repr(verdict), wire.group_to_proto(served).SerializeToString() if served else b""
        )

        seen: list[Accepted] = []

        def store(transaction: Transaction) -> list[str]:
            seen.clear()
            if self._people.crowd.state(user) is AnnotatorState.EXCLUDED:
                raise WrongState(f"{user} was taken out and gives no feedback.", "Ask the lead.", "ANNOTATOR_EXCLUDED")
            group = _own_group(transaction.connection, verdict, user, served)
            event_id = record_group(transaction, run_id, group)
            if isinstance(verdict, Thumb):
                return [event_id, transaction.append(run_id, self._rate(user, verdict, group.completions[0]))]
            seen.append(self._prefer(transaction, run_id, user, verdict, group))
            return [event_id, seen[0].label.label_id]

        done = self._people.database.write(lambda tx: tx.once(request_id, content, lambda: store(tx)))
        return self._people.noted(done, lambda _answer: seen)

    def _rate(self, user: str, thumb: Thumb, completion: Completion) -> Reward | Abstention:
        """Rewards have no weight: the thumb of somebody whose votes count nothing is kept as an abstention."""
        if self._people.crowd.weight(user) > 0:
            return Reward(completion.completion_id, float(thumb.up), USER + user)
        reason = f"ANNOTATOR_QUARANTINED: thumb {'up' if thumb.up else 'down'}"
        return Abstention(completion.completion_id, USER + user, reason)

    def _prefer(
        self, transaction: Transaction, run_id: str, user: str, verdict: Kept | Edited, group: Group
    ) -> Accepted:
        first, second = group.completions
        task = Task(uuid.uuid4().hex, run_id, group.group_id, group.prompt, first, second, only_for=user)
        add_task(transaction, task)
        strength = verdict.strength if isinstance(verdict, Kept) else 0
        weight = self._people.crowd.vote_weight(user)
        outcome = Outcome.FIRST if better_first(group.group_id) else Outcome.SECOND
        accepted = label_directly(transaction, task.task_id, user, outcome, "", weight, strength)
        self._people.conclude(transaction, accepted)
        return accepted


def _own_group(connection: Connection, verdict: Verdict, user: str, served: Group | None) -> Group:
    """A fresh group of the answers that the verdict is about. Which one stands first is drawn from the group's id: who
    always had the better one first would look like somebody who always takes the left."""
    group_id = uuid.uuid4().hex
    names = [verdict.completion_id]
    if isinstance(verdict, Kept):
        names.append(verdict.over_completion_id)
    prompt, found = _answers(connection, names, served)
    answers = [replace(c, completion_id=uuid.uuid4().hex, group_id=group_id) for c in found]
    if isinstance(verdict, Edited):
        answers = [_edited(answers[0], verdict.text, user), *answers]
    return Group(group_id, prompt, tuple(answers if better_first(group_id) else reversed(answers)))


def better_first(group_id: str) -> bool:
    return int(group_id[-1], 16) % 2 == 0


def _answers(connection: Connection, names: list[str], served: Group | None) -> tuple[Prompt, list[Completion]]:
    if len(set(names)) != len(names):
        raise InvalidInput("An answer cannot be kept over itself.", "Name two answers.", "NOT_SERVED")
    if served is None:
        recorded = find_completions(connection, names)
        if len({each.prompt.messages for each in recorded}) > 1:
            raise InvalidInput("The two answers are to different prompts.", "Name answers to one prompt.", "NOT_SERVED")
        return recorded[0].prompt, [each.completion for each in recorded]
    by_id = {c.completion_id: c for c in served.completions}
    unknown = [name for name in names if name not in by_id]
    if unknown:
        raise InvalidInput(
            f"The served group has no answer {unknown[0]!r}.", "Send the answers that the verdict names.", "NOT_SERVED"
        )
    return served.prompt, [_text_only(by_id[name]) for name in names]


def _text_only(completion: Completion) -> Completion:
    """What a client sends is a text and no more: its tokens, log-probs and policy would be trained on unproved."""
    return replace(
        completion, prompt_token_ids=(), token_ids=(), logprobs=(), policy_version=BASE_VERSION, policy_digest=""
    )


def _edited(original: Completion, text: str, user: str) -> Completion:
    """A text of the user's: no tokens, no log-probs, no policy. The learner encodes it when it is used."""
    return Completion(
        completion_id=uuid.uuid4().hex,
        prompt_id=original.prompt_id,
        group_id=original.group_id,
        text=text,
        prompt_token_ids=(),
        token_ids=(),
        logprobs=(),
        finish_reason=FinishReason.STOP,
        policy_version=original.policy_version,
        policy_digest=original.policy_digest,
        author=user,
    )
