"""A leased task as the annotators' page gets it: texts in the presented order, and nothing that tells who wrote what.

No completion id, run, kind or right answer is sent. `task_id` is random and says nothing: drafts are kept by it.
"""

from __future__ import annotations

from typing import Any

from iterpo.labeling.guidelines import Guideline
from iterpo.store.leases import Held
from services.labeling.page.rendering import Shown
from services.labeling.page.word_diff import word_diff


def task_json(held: Held, guideline: Guideline, now: float, lease_seconds: float) -> dict[str, Any]:
    """Takes up to a fifth of a second for long texts: call it in a thread. `now` is the server's clock."""
    task = held.lease.task
    first, second = (task.second, task.first) if held.swapped else (task.first, task.second)
    answers = [Shown.of(first.text), Shown.of(second.text)]
    return {
        "lease_id": held.lease_id,
        "task_id": held.task_id,
        "expires_at": held.expires_at,
        "seconds_left": max(0.0, held.expires_at - now),
        "lease_seconds": lease_seconds,
        "prompt": [{"role": message.role, **Shown.of(message.content).as_json()} for message in task.prompt.messages],
        "answers": [
            {**answer.as_json(), "truncated": completion.truncated}
            for answer, completion in zip(answers, (first, second), strict=True)
        ],
        "diff": word_diff(answers[0].text, answers[1].text),
        "guideline": guideline_json(guideline),
    }


def guideline_json(guideline: Guideline) -> dict[str, Any]:
    return {
        "name": guideline.name,
        "version": guideline.version,
        "html": Shown.of(guideline.text).html if guideline.text else "",
        "aspects": list(guideline.aspects),
    }
