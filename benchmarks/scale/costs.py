"""What each part of the loop takes on one machine that does nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, unless a name says otherwise."""

    call: float
    """Of a batch of answers, beside its prompts and decoding steps."""
    prompt: float
    """More, for each answer of the batch."""
    step: float
    """Of a decoding step, however many sequences are in it."""
    sequence: float
    """More, for each sequence in a step."""
    update: float
    """Of an update, beside its tokens."""
    trained_token: float
    """More, for each sampled token that is trained on."""
    load: float
    """Until a replica has loaded and proved a version."""
    judged_answer: float
    """Of the learner, for each held-out answer: its KL."""
    settle: float
    """Publish, promote, commit the row: what is left of an iteration."""

    def answers(self, number: int, tokens: int) -> float:
        """Of an engine that decodes so many sequences of so many tokens together."""
        if not number:
            return 0.0
        return self.call + number * self.prompt + tokens * (self.step + number * self.sequence)

    def update_of(self, tokens: int, ranks: int, reduced_bytes: float, link_bytes_per_second: float) -> float:
        """Ranks share the tokens evenly and add their gradients up in a ring: each sends and receives
        2 (ranks - 1) / ranks of them (Patarasuk and Yuan 2009, section 4). The link is assumed, not measured."""
        ring = 2 * (ranks - 1) / ranks * reduced_bytes / link_bytes_per_second
        return self.update + self.trained_token * tokens / ranks + ring

    def write(self, path: Path, about: dict[str, object]) -> None:
        path.write_text(json.dumps(about | {"costs": asdict(self)}, indent=1) + "\n")


def read_costs(path: Path) -> Costs:
    return Costs(**json.loads(path.read_text())["costs"])
