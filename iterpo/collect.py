"""The synchronous first half of an iteration: draw prompts, have them answered, wait for their feedback, read it back.

Where the run stands (`Progress`) comes in and goes out: nothing here outlives an iteration.
"""

from __future__ import annotations

import time

from iterpo.algorithms import Algorithm
from iterpo.intake import IDLE_SECONDS, Collected, Intake
from iterpo.patience import Control
from iterpo.ports import World
from iterpo.run_config import RunConfig
from iterpo.sampling import Sampler
from iterpo.types import Progress


class Collector:
    def __init__(
        self, config: RunConfig, algorithm: Algorithm, world: World, sampler: Sampler, intake: Intake, control: Control
    ) -> None:
        self._config, self._algorithm, self._world = config, algorithm, world
        self._sampler, self._intake, self._control = sampler, intake, control
        self._left: float | None = None
        self.remember, self.sampled = intake.remember, sampler.sampled

    def collect(self, at: Progress) -> Collected:
        """Groups with their feedback: as many prompts as the algorithm wants, refilled where it says so."""
        asked, found = time.monotonic(), Collected(at)
        since = asked if self._left is None else self._left
        for _ in range(1 + getattr(self._algorithm.response_sampling, "refill", 0)):
            wanted = self._algorithm.prompts_per_iteration - self._intake.useful(found.groups)
            if wanted <= 0:
                break
            self._draw(wanted, found)
        self._intake.replay(found)
        found.waits = {"backpressure": asked - since, "rollouts": time.monotonic() - asked}
        self._left = time.monotonic()
        return found

    def _draw(self, count: int, found: Collected) -> None:
        """Backlog of a crash is used, not redone."""
        at, buffer = found.progress, self._intake.buffer
        chosen, found.progress = self._sampler.draw(count, at)
        if self._algorithm.response_sampling.offline:
            found.groups += [self._world.learner.encode(e) for e in chosen]
            return
        self._intake.read(IDLE_SECONDS if at.iteration == 0 else 0.05)
        missing = [e.prompt for e in chosen if e.prompt.prompt_id not in buffer.prompt_ids]
        if missing:
            groups = self._sampler.answer(missing, found.progress)
            buffer.expect(groups)
            self._sampler.record(groups, at)
        self._await_feedback()
        self._intake.take(found)
        self._intake.drop_old(found, at.version)

    def _await_feedback(self) -> None:
        """Past the deadline the run goes on with what is complete; with nothing complete there is nothing to go on
        with."""
        buffer = self._intake.buffer
        deadline = time.monotonic() + self._config.feedback_timeout_seconds
        while not buffer.all_complete and (time.monotonic() < deadline or not buffer.any_complete):
            self._intake.read(IDLE_SECONDS, until=lambda: buffer.all_complete)
            if buffer.waiting:
                self._control.status(f"waiting for feedback on {buffer.waiting} groups", True)
