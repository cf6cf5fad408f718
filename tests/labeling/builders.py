"""Three-line builders of prompts, completions and groups for the labeling tests."""

from __future__ import annotations

from iterpo.types import Completion, FinishReason, Group, Message, Prompt


def prompt(text: str = "How are you?", answer: str = "", prompt_id: str = "p1") -> Prompt:
    return Prompt(prompt_id, (Message("user", text),), reference_answer=answer)


def completion(text: str, completion_id: str = "c1", group_id: str = "g1", **changes: FinishReason) -> Completion:
    finish = changes.get("finish_reason", FinishReason.STOP)
    return Completion(completion_id, "p1", group_id, text, (1, 2), (3, 4), (-0.5, -0.25), finish, 0, "base")


def group(*texts: str, group_id: str = "g1", answer: str = "") -> Group:
    answers = tuple(completion(text, f"{group_id}-{index}", group_id) for index, text in enumerate(texts))
    return Group(group_id, prompt(answer=answer), answers)
