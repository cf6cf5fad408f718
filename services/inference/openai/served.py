"""What was answered of late, so that feedback need only name it."""

from __future__ import annotations

from collections import OrderedDict

from iterpo.errors import NotFound
from iterpo.types import Group

MOST_CHARACTERS = 32 * 1024 * 1024
"""Of prompts and answers together; about ten times as many bytes with token ids and log-probs."""


class Served:
    """The latest groups of answers. Not on disk: what nobody says anything about is not kept."""

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self._most = most_characters
        self._groups: OrderedDict[str, tuple[Group, int]] = OrderedDict()
        self._group_of: dict[str, str] = {}
        self._characters = 0

    def remember(self, group: Group) -> None:
        size = sum(len(m.content) for m in group.prompt.messages) + sum(len(c.text) for c in group.completions)
        self._groups[group.group_id] = (group, size)
        self._group_of |= {c.completion_id: group.group_id for c in group.completions}
        self._characters += size
        while self._characters > self._most and len(self._groups) > 1:
            _, (old, characters) = self._groups.popitem(last=False)
            self._characters -= characters
            for completion in old.completions:
                del self._group_of[completion.completion_id]

    def group_of(self, completion_id: str) -> Group:
        """Raises NotFound (NOT_SERVED)."""
        if completion_id not in self._group_of:
            raise NotFound(
                f"No answer {completion_id!r} is remembered here.",
                "Name the completion_id of a choice, soon after the answer; a restart of the server forgets.",
                "NOT_SERVED",
            )
        return self._groups[self._group_of[completion_id]][0]
