"""A run in the fake world, put together from its ledger by the same functions as a real one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from iterpo.algorithms import resolve
from iterpo.buffer import GroupBuffer
from iterpo.iterate import Loop
from iterpo.learner.ledger import Ledger
from iterpo.patience import Control
from iterpo.pipeline import make_loop
from iterpo.policies import manifest
from iterpo.ports import World
from iterpo.run_config import RunConfig
from iterpo.types import Example, IterationRow, Progress
from services.learner.assembly import commit, standing
from tests.loop.fakes import (
    RUN,
    Clock,
    Crash,
    FakeFeedback,
    FakeGenerator,
    FakeLabeler,
    FakeLearner,
    FakePublisher,
    Faults,
    prompt,
)

SMALL = {"algorithm": "grpo", "prompts_per_iteration": 2, "response_sampling": {"size": 2}, "iterations": 3}


def first_is_best(completion) -> float:
    return 1.0 if completion.text == "0" else 0.0


class Run:
    """What outlives a crash of the loop; `loop()` is the process that does not."""

    def __init__(self, folder: Path, judge=first_is_best, prompts: int = 6, **config: Any) -> None:
        self.folder, self.config = folder, RunConfig(**(SMALL | config))
        self.clock, self.faults, self.publisher = Clock(), Faults(), FakePublisher()
        self.feedback = FakeFeedback(self.clock, judge)
        self.labeler, self.generator = FakeLabeler(), FakeGenerator(self.publisher)
        self.ledger = Ledger(folder / "learner.db")
        self.statuses: list[tuple[str, bool]] = []
        self.kept: dict[int, Any] = {}
        given = ("an answer",) if resolve(self.config).response_sampling.offline else ()
        self.ledger.create(RUN, self.config.model_dump(), [Example(prompt(i), given) for i in range(prompts)], [])

    def loop(self) -> Loop:
        record = self.ledger.get(RUN)
        checkpoints = self.folder / "checkpoints"
        self.learner = FakeLearner()
        progress = standing(record, self.ledger, checkpoints, self.learner, self.begin)
        world = World(
            generator=self.faults.around(self.generator),
            feedback=self.faults.around(self.feedback),
            labeler=self.faults.around(self.labeler),
            publisher=self.faults.around(self.publisher),
            learner=self.faults.around(self.learner),
            policies=self.folder / "policies",
            checkpoints=checkpoints,
            commit=self.faults.call("commit", partial(commit, self.ledger, checkpoints)),
            note=self.faults.call("note", partial(self.ledger.set_progress, RUN)),
            keep=lambda iteration, make: self.kept.__setitem__(iteration, make()),
        )
        self.control = Control(lambda text, waiting: self.statuses.append((text, waiting)))
        return make_loop(
            RUN,
            self.config,
            resolve(self.config),
            record.examples,
            [prompt(100)],
            world,
            progress,
            self.rebuilt_buffer(),
            self.control,
        )

    def begin(self) -> Progress:
        """A new run goes on from whatever serves."""
        if self.publisher.serving:
            self.learner.load(manifest.directory(self.folder / "policies", self.publisher.serving))
        if self.config.beside:
            self.publisher.run_heads[RUN] = self.publisher.serving
        return Progress(version=self.publisher.serving)

    def rebuilt_buffer(self) -> GroupBuffer:
        cursor = self.ledger.get(RUN).progress.cursor
        return GroupBuffer(cursor, self.ledger.consumed(RUN, cursor))

    def finish(self) -> list[IterationRow]:
        return list(self.loop().iterations())

    def finish_despite_crashes(self) -> int:
        """Resume after every crash; returns how many there were."""
        crashes = 0
        while True:
            try:
                self.finish()
            except Crash:
                crashes += 1
            else:
                return crashes
