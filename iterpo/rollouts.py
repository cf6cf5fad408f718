"""Sampling and labeling as two loops of their own, ahead of the learner by `run.ahead` iterations at most.

sampling: draw prompts, have them answered, record the groups     waits while the buffer is full (backpressure)
labeling: read feedback into the buffer                           waits while nothing is out
the learner takes complete groups out of the buffer               waits while there are too few (rollouts)

Groups are taken when they are used, not before: until then newer preferences still reach them. What an application's
users said, and imports, hold no place in the buffer, and come along whenever groups are taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from iterpo.algorithms import Algorithm
from iterpo.background import in_background
from iterpo.buffer import is_sampled
from iterpo.intake import IDLE_SECONDS, Collected, Intake
from iterpo.patience import Control
from iterpo.ports import Learner
from iterpo.run_config import RunConfig
from iterpo.sampling import Sampler
from iterpo.types import Completion, Progress, Prompt, SamplingSettings

LOOK_SECONDS = 0.5
"""How long a loop sleeps at most before it looks whether the run was paused or stopped."""
ENDING_SECONDS = 30.0


class Rollouts:
    def __init__(
        self,
        config: RunConfig,
        algorithm: Algorithm,
        sampler: Sampler,
        intake: Intake,
        control: Control,
        standing: StandingPolicy,
    ) -> None:
        """`control` is the learner's: the others have their own. `standing`: the sampler's learner."""
        self._config, self._sampler, self._intake, self._control = config, sampler, intake, control
        self._batch = algorithm.prompts_per_iteration
        self._refill = int(getattr(algorithm.response_sampling, "refill", 0))
        self._changed = threading.Condition()
        self._loops: list[Future[None]] = []
        self._caught_up = False
        self._wanted = 0
        """Groups that the learner waits for."""
        self._held = 0
        """Groups that it has taken for the iteration that it waits for more of."""
        self._given_up = 0
        """A cursor: groups that began before it, and still wait for feedback, were waited for in vain. They hold no
        place."""
        self._all_out = False
        """Whether every prompt that could be asked is in the buffer already."""
        self._backpressure, self._idle = 0.0, 0.0
        self.remember, self.sampled, self.stand = intake.remember, sampler.sampled, standing.stand

    @contextmanager
    def flowing(self, at: Progress) -> Iterator[None]:
        """Within: both loops run, from where the run stands, until its control is stopped."""
        self._at = at
        self._loops = [in_background("sampling", self._sample), in_background("labeling", self._label)]
        for loop in self._loops:
            loop.add_done_callback(self._notify)
        try:
            yield
        finally:
            self._notify()
            wait(self._loops, ENDING_SECONDS)

    def come_before(self, news: Future[Any]) -> bool:
        """Wait for an iteration's groups, or for that; whether the groups came first."""
        since = time.monotonic()
        news.add_done_callback(self._notify)
        with self._changed:
            while not self._enough(self._batch) and not news.done():
                self._want(self._batch)
            self._wanted = 0
        self._idle += time.monotonic() - since
        return not news.done()

    def collect(self, at: Progress) -> Collected:
        """As many prompts' groups as the algorithm wants, refilled where it says so, and where groups were too old.
        Raises what a loop ended with."""
        asked = time.monotonic()
        deadline, left = asked + self._config.feedback_timeout_seconds, self._batch * (1 + self._refill)
        with self._changed:
            found = Collected(replace(at, drawn=self._at.drawn, seen=self._at.seen))
        while left > 0 and (wanted := min(left, self._batch - self._have(found))) > 0:
            full = self._await(wanted, deadline, bool(found.consumed))
            with self._changed:
                self._intake.take(found, wanted)
                self._intake.drop_old(found, at.version)
                self._held = self._have(found)
            left = self._batch * (1 + self._refill) - sum(map(is_sampled, found.groups)) if full else 0
        self._intake.replay(found)
        with self._changed:
            found.progress = replace(found.progress, drawn=self._at.drawn)
            self._at = replace(self._at, iteration=at.iteration + 1, version=at.version, seen=found.progress.seen)
            self._held = 0
            found.waits = {"rollouts": self._idle + time.monotonic() - asked, "backpressure": self._backpressure}
            self._backpressure, self._idle = 0.0, 0.0
            self._changed.notify_all()
        return found

    def _have(self, found: Collected) -> int:
        return self._intake.useful(found.groups) if self._refill else sum(map(is_sampled, found.groups))

    def _await(self, wanted: int, deadline: float, some: bool) -> bool:
        """Whether there are as many complete groups; past the deadline any are enough, or none, with `some` in hand."""
        buffer = self._intake.buffer
        with self._changed:
            began = buffer.cursor
            while not self._enough(wanted):
                if time.monotonic() >= deadline:
                    self._given_up = began
                    if buffer.any_complete or some:
                        break
                    began, deadline = buffer.cursor, time.monotonic() + self._config.feedback_timeout_seconds
                self._want(wanted)
            self._wanted = 0
            return buffer.complete >= wanted

    def _enough(self, wanted: int) -> bool:
        """A pool of fewer prompts than an iteration wants never has more."""
        buffer = self._intake.buffer
        all_there = self._all_out and buffer.complete == len(buffer) > 0
        return self._caught_up and (buffer.complete >= wanted or all_there)

    def _want(self, wanted: int) -> None:
        self._wanted = wanted
        missing = wanted - self._intake.buffer.complete
        self._control.status(f"waiting for {missing} of {wanted} groups", True)
        self._changed.notify_all()
        self._sleep(self._control)

    def _sample(self) -> None:
        buffer, control = self._intake.buffer, self._sampler.control
        while count := self._room(control):
            at = self._at
            chosen, drawn = self._sampler.draw(count, at)
            out = buffer.prompt_ids
            prompts = [e.prompt for e in chosen if e.prompt.prompt_id not in out]
            groups = self._sampler.answer(prompts, drawn) if prompts else []
            buffer.expect(groups)
            with self._changed:
                # Before they are recorded: after a crash in between they are passed over, rather than asked twice.
                self._at, self._all_out = replace(self._at, drawn=drawn.drawn), not prompts
                self._changed.notify_all()
                if self._all_out:
                    self._sleep(control)
            if groups:
                self._sampler.record(groups, at)
                self._notify()

    def _room(self, control: Control) -> int:
        """Prompts that may be drawn, once there are any; 0 when the run needs no more."""
        buffer = self._intake.buffer
        with self._changed:
            while not self._caught_up or self._places() <= 0:
                if self._at.iteration >= self._config.iterations:
                    return 0
                control.status(f"{len(buffer)} groups are ahead of the learner", True)
                since, full = time.monotonic(), buffer.complete >= self._batch
                self._sleep(control)
                self._backpressure += (time.monotonic() - since) * full
            return min(self._batch, self._places())

    def _places(self) -> int:
        buffer, left = self._intake.buffer, self._config.iterations - self._at.iteration
        wanted = min(self._batch * self._config.ahead, self._batch * left - self._held)
        return wanted + buffer.waiting_since(self._given_up) - len(buffer)

    def _label(self) -> None:
        buffer, control = self._intake.buffer, self._intake.control
        self._catch_up()
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

    def _catch_up(self) -> None:
        """What was drawn and recorded before a crash is used, not asked again: draws go on after it."""
        self._intake.read(IDLE_SECONDS)
        backlog, at = self._intake.buffer.prompt_ids, self._at
        while backlog:
            chosen, drawn = self._sampler.draw(1, at)
            names = {e.prompt.prompt_id for e in chosen}
            if not names <= backlog:
                break
            backlog, at = backlog - names, drawn
        with self._changed:
            self._at, self._caught_up = at, True
            self._changed.notify_all()

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


class StandingPolicy:
    """The learner as sampling sees it: with the weights of the run's last promoted version, whatever is being learned
    meanwhile."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._at: tuple[int, Any] = (0, None)

    def stand(self, version: int, state: Any) -> None:
        self._at = (version, state)

    def log_ratios(self, completions: Sequence[Completion]) -> list[float]:
        return self._learner.log_ratios(completions, self._at[1])

    def mixture(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, share: float, version: int
    ) -> list[list[Completion]]:
        version, state = self._at
        return self._learner.mixture(prompts, n, settings, share, version, state)
