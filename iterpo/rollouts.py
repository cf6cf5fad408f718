"""Sampling and labeling as two loops of their own, ahead of the learner by `run.ahead` iterations at most.

sampling: draw prompts, have them answered, record the groups     waits while the buffer is full (backpressure)
labeling: read feedback into the buffer                           waits while nothing is out
the learner takes complete groups out of the buffer               waits while there are too few (rollouts)

Groups are taken when they are used, not before: until then newer preferences still reach them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace

from iterpo.algorithms import Algorithm
from iterpo.background import in_background
from iterpo.intake import IDLE_SECONDS, Collected, Intake
from iterpo.patience import Control
from iterpo.run_config import RunConfig
from iterpo.sampling import Sampler
from iterpo.types import Progress

LOOK_SECONDS = 0.5
"""How long a loop sleeps at most before it looks whether the run was paused or stopped."""
ENDING_SECONDS = 30.0


class Rollouts:
    def __init__(
        self, config: RunConfig, algorithm: Algorithm, sampler: Sampler, intake: Intake, control: Control
    ) -> None:
        """`control` is the learner's: the others have their own."""
        self._config, self._sampler, self._intake, self._control = config, sampler, intake, control
        self._batch = algorithm.prompts_per_iteration
        self._refill = int(getattr(algorithm.response_sampling, "refill", 0))
        self._changed = threading.Condition()
        self._loops: list[Future[None]] = []
        self._caught_up = False
        self._wanted = 0
        """Groups that the learner waits for."""
        self._stragglers = 0
        """Groups that it waited for in vain: they hold no place."""
        self._backpressure = 0.0
        self.remember, self.speed = intake.remember, sampler.speed

    @contextmanager
    def flowing(self, at: Progress) -> Iterator[None]:
        """Within: both loops run, from where the run stands."""
        self._at = at
        self._loops = [in_background("sampling", self._sample), in_background("labeling", self._label)]
        for loop in self._loops:
            loop.add_done_callback(self._notify)
        try:
            yield
        finally:
            self._control.stop()
            self._notify()
            wait(self._loops, ENDING_SECONDS)

    def collect(self, at: Progress) -> Collected:
        """Raises what a loop ended with."""
        asked = time.monotonic()
        with self._changed:
            found = Collected(replace(at, drawn=self._at.drawn, seen=self._at.seen))
        for _ in range(1 + self._refill):
            wanted = self._batch - self._intake.useful(found.groups)
            if wanted <= 0:
                break
            self._await(wanted, asked + self._config.feedback_timeout_seconds)
            self._intake.take(found, wanted)
            self._intake.drop_old(found, at.version)
        self._intake.replay(found)
        with self._changed:
            found.progress = replace(found.progress, drawn=self._at.drawn)
            self._at = replace(self._at, iteration=at.iteration + 1, version=at.version, seen=found.progress.seen)
            found.waits = {"rollouts": time.monotonic() - asked, "backpressure": self._backpressure}
            self._backpressure = 0.0
            self._changed.notify_all()
        return found

    def _await(self, wanted: int, deadline: float) -> None:
        """As many complete groups, or, past the deadline, any."""
        buffer = self._intake.buffer
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()
            while buffer.complete < wanted:
                late = time.monotonic() >= deadline
                if late and buffer.complete:
                    self._stragglers = buffer.waiting
                    break
                self._control.status(f"waiting for {wanted - buffer.complete} of {wanted} groups", True)
                self._sleep(self._control)
            self._wanted = 0

    def _sample(self) -> None:
        buffer, control = self._intake.buffer, self._sampler.control
        while count := self._room(control):
            at = self._at
            chosen, drawn = self._sampler.draw(count, at)
            out = buffer.prompt_ids  # a crash's backlog is used, not redone
            prompts = [e.prompt for e in chosen if e.prompt.prompt_id not in out]
            if prompts:
                groups = self._sampler.answer(prompts, drawn)
                buffer.expect(groups)
                self._sampler.record(groups, at)
            with self._changed:
                # Draws count once their groups are stored: what was drawn and not recorded is drawn again.
                self._at = replace(self._at, drawn=drawn.drawn)
                self._changed.notify_all()
                if not prompts:
                    self._sleep(control)  # all that can be asked is out

    def _room(self, control: Control) -> int:
        """Prompts that may be drawn, once there are any; 0 when the run needs no more."""
        buffer = self._intake.buffer
        with self._changed:
            while self._caught_up is False or self._places(len(buffer)) <= 0:
                if self._at.iteration >= self._config.iterations:
                    return 0
                control.status(f"{len(buffer)} groups are ahead of the learner", True)
                since, full = time.monotonic(), buffer.complete >= self._batch
                self._sleep(control)
                self._backpressure += (time.monotonic() - since) * full
            return min(self._batch, self._places(len(buffer)))

    def _places(self, out: int) -> int:
        left = self._config.iterations - self._at.iteration
        self._stragglers = min(self._stragglers, self._intake.buffer.waiting)
        return self._batch * min(self._config.ahead, left) + self._stragglers - out

    def _label(self) -> None:
        buffer, control = self._intake.buffer, self._intake.control
        self._intake.read(IDLE_SECONDS)  # what a crash left
        self._caught_up = True
        self._notify()
        while self._at.iteration < self._config.iterations:
            with self._changed:
                if not len(buffer):
                    self._sleep(control)
                    continue
            self._intake.read(IDLE_SECONDS, until=lambda: control.paused or self._served())
            with self._changed:
                self._changed.notify_all()
                if buffer.all_complete:
                    self._sleep(control)
                else:
                    control.status(f"waiting for feedback on {buffer.waiting} groups", True)

    def _served(self) -> bool:
        buffer = self._intake.buffer
        return buffer.all_complete or buffer.complete >= self._wanted > 0

    def _sleep(self, control: Control) -> None:
        """Until something changes; called with the lock, which it lets go. Raises what a loop failed with, RunStopped
        when the run ends."""
        for loop in self._loops:
            if loop.done():
                loop.result()
        self._changed.wait(LOOK_SECONDS)
        control.point()

    def _notify(self, _: object = None) -> None:
        with self._changed:
            self._changed.notify_all()
