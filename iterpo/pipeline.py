"""The asynchronous form of the loop: sampling, labeling, learning and publishing at the same time.

sampling --groups--> labeling --complete groups--> learning --candidates--> publishing
   ^                (rollouts.py)                                                |
   +------------------------------- what serves <--------------------------------+

An update does not wait for the verdict on the one before: it builds on that candidate, as if it had passed. Where the
gate refuses it, the learner goes back to where it stood before both, and learns the younger one's groups once more.
Nothing is published before its parent is settled, rows are committed in order, and what was trained on, by whatever
attempt, is consumed once, with its row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from iterpo.algorithms import Algorithm
from iterpo.background import in_background
from iterpo.buffer import GroupBuffer
from iterpo.collect import Collector
from iterpo.deliver import Candidate, Deliverer, Delivery
from iterpo.intake import Intake
from iterpo.iterate import Learned, Loop, Source
from iterpo.patience import Control
from iterpo.ports import Learner, World
from iterpo.replay import Replay
from iterpo.rollouts import ENDING_SECONDS, Rollouts
from iterpo.run_config import RunConfig
from iterpo.sampling import Sampler
from iterpo.types import Completion, Example, IterationRow, Progress, Prompt, SamplingSettings


@dataclass(frozen=True)
class Ahead:
    """An update whose candidate is being judged."""

    learned: Learned
    state: Any
    """The learner's snapshot after it."""
    candidate: Candidate | None = None
    """None: there was nothing to learn from."""
    verdict: Future[Delivery] | None = None


class Pipeline(Loop):
    def __init__(self, *parts: Any, standing: StandingPolicy) -> None:
        super().__init__(*parts)
        self.standing = standing

    def iterations(self) -> Iterator[IterationRow]:
        """As the synchronous loop's, with `seconds` from row to row."""
        self.begin()
        self.standing.move(self.progress.version, self.world.learner.snapshot())
        ahead: Ahead | None = None
        last = time.monotonic()
        with self.flowing():
            try:
                while ahead or self.progress.iteration < self.config.iterations:
                    self.control.point()
                    learned = self.learn_ahead(ahead) if self.may_learn(ahead) else None
                    if ahead:
                        judged, ahead = ahead, None
                        row = self.settle(judged, time.monotonic() - last)
                        last = time.monotonic()
                        if learned and row.decision and not row.promoted:
                            learned = self.learn(learned.found, self.progress.iteration)
                        yield row
                    ahead = self.hand_on(learned) if learned else None
            finally:
                self.control.stop()  # a verdict that waits for a process that is away would hold the end up
                if ahead:
                    self.end(ahead, time.monotonic() - last)

    def end(self, ahead: Ahead, seconds: float) -> None:
        """What was promoted just before the end stays promoted: it gets its row."""
        pending = [ahead.verdict] if ahead.verdict else []
        wait(pending, ENDING_SECONDS)
        if all(verdict.done() and not verdict.exception() for verdict in pending):
            self.settle(ahead, seconds)

    def flowing(self) -> AbstractContextManager[None]:
        """Given answers need no loops of their own."""
        return self.source.flowing(self.progress) if isinstance(self.source, Rollouts) else nullcontext()

    def may_learn(self, ahead: Ahead | None) -> bool:
        """Not beyond the last iteration, nor when a verdict is there before the next groups: it is obeyed first."""
        if ahead is None:
            return True
        if self.progress.iteration + 1 == self.config.iterations or ahead.verdict is None:
            return False
        return self.source.come_before(ahead.verdict) if isinstance(self.source, Rollouts) else True

    def learn_ahead(self, ahead: Ahead | None) -> Learned:
        """The next update, on top of the one that is being judged."""
        at = self.progress
        if ahead:
            version = ahead.candidate.version if ahead.candidate else at.version
            at = replace(ahead.learned.found.progress, iteration=at.iteration + 1, version=version)
        return self.learn(self.source.collect(at), at.iteration)

    def hand_on(self, learned: Learned) -> Ahead:
        state = self.world.learner.snapshot()
        if not learned.numbers:
            return Ahead(learned, state)
        written = self.deliverer.write(self.progress, learned.numbers, learned.found.consumed, self.buffer.cursor)
        candidate = replace(written, state=state)
        judge = partial(self.deliverer.judge, candidate, self.progress)
        return Ahead(learned, state, candidate, in_background("publishing", judge))

    def settle(self, ahead: Ahead, seconds: float) -> IterationRow:
        """Wait for the verdict, obey it, commit the row."""
        delivery, state, since = None, ahead.state, time.monotonic()
        if ahead.verdict and ahead.candidate:
            self.control.status(f"waiting for the verdict on version {ahead.candidate.version}", True)
            delivery = ahead.verdict.result()
            told = "serves" if delivery.decision.promote else "was refused"
            self.deliverer.control.status(f"version {delivery.version} {told}", False)
        if delivery and not delivery.decision.promote:
            state = ahead.learned.before
            self.world.learner.restore(state)
        ahead.learned.found.waits["verdict"] = time.monotonic() - since
        row = self.row(ahead.learned, delivery, seconds)
        self.commit(row, ahead.learned.found, state)
        self.standing.move(self.progress.version, state)
        return row


class StandingPolicy:
    """The learner as sampling sees it: with the weights of the run's last promoted version, whatever is being learned
    meanwhile."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._at: tuple[int, Any] = (0, None)

    def move(self, version: int, state: Any) -> None:
        self._at = (version, state)

    def log_ratios(self, completions: Sequence[Completion]) -> list[float]:
        return self._learner.log_ratios(completions, self._at[1])

    def mixture(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, share: float, version: int
    ) -> list[list[Completion]]:
        version, state = self._at
        return self._learner.mixture(prompts, n, settings, share, version, state)


class Statuses:
    """What the loops do, told as one; the run waits when its learner does."""

    def __init__(self, control: Control) -> None:
        self._control, self._lock = control, threading.Lock()
        self._said: dict[str, tuple[str, bool]] = {}

    def of(self, name: str) -> Control:
        """The control of a loop."""

        def say(text: str, waiting: bool) -> None:
            with self._lock:
                self._said[name] = (text, waiting)
                told = "; ".join(f"{loop}: {said}" for loop, (said, _) in self._said.items())
                self._control.status(told, self._said.get("learning", ("", False))[1])

        return self._control.sharing(say)


def make_loop(
    run_id: str,
    config: RunConfig,
    algorithm: Algorithm,
    examples: Sequence[Example],
    heldout: Sequence[Prompt],
    world: World,
    progress: Progress,
    buffer: GroupBuffer,
    control: Control,
    replay: Replay | None = None,
) -> Loop:
    """A run's loop: synchronous, or a pipeline where `run.ahead` says so. A replay, whose groups are there already, is
    synchronous."""
    if replay is not None:
        deliverer = Deliverer(run_id, config, heldout, world, control)
        return Loop(run_id, config, algorithm, world, progress, buffer, control, replay, deliverer)
    if not config.ahead:
        sampler = Sampler(run_id, config, algorithm, examples, world, control)
        intake = Intake(run_id, config, algorithm, world, buffer, control)
        collector = Collector(config, algorithm, world, sampler, intake, control)
        deliverer = Deliverer(run_id, config, heldout, world, control)
        return Loop(run_id, config, algorithm, world, progress, buffer, control, collector, deliverer)
    statuses, standing = Statuses(control), StandingPolicy(world.learner)
    learning = statuses.of("learning")
    beside = replace(world, learner=cast("Learner", standing))
    sampler = Sampler(run_id, config, algorithm, examples, beside, statuses.of("sampling"))
    intake = Intake(run_id, config, algorithm, world, buffer, statuses.of("labeling"))
    source: Source = Rollouts(config, algorithm, sampler, intake, learning)
    if algorithm.response_sampling.offline:
        source = Collector(config, algorithm, world, sampler, intake, learning)
    deliverer = Deliverer(run_id, config, heldout, world, statuses.of("publishing"))
    return Pipeline(run_id, config, algorithm, world, progress, buffer, learning, source, deliverer, standing=standing)
