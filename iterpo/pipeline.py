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
from typing import Any, Protocol, cast

from iterpo import tracing
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
from iterpo.rollouts import ENDING_SECONDS, Rollouts, StandingPolicy
from iterpo.run_config import RunConfig
from iterpo.sampling import Sampler
from iterpo.types import Example, IterationRow, Progress, Prompt


@dataclass(frozen=True)
class Ahead:
    """An update whose candidate is being judged."""

    learned: Learned
    state: Any
    """The learner's snapshot after it."""
    candidate: Candidate | None = None
    """None: there was nothing to learn from."""
    verdict: Future[Delivery] | None = None


class Flow(Source, Protocol):
    """A source that runs ahead."""

    def flowing(self, at: Progress) -> AbstractContextManager[None]:
        """Within: it gets on by itself, until the run's control is stopped."""
        ...

    def come_before(self, news: Future[Any]) -> bool:
        """Wait for an iteration's groups, or for that; whether the groups came first."""
        ...

    def stand(self, version: int, state: Any) -> None:
        """What serves, and the learner's snapshot of it."""
        ...


class Pipeline(Loop):
    source: Flow

    def iterations(self) -> Iterator[IterationRow]:
        """As the synchronous loop's, with `seconds` from row to row."""
        self.begin()
        standing = self.world.learner.snapshot()
        self.source.stand(self.progress.version, standing)
        ahead: Ahead | None = None
        last = time.monotonic()
        with self.source.flowing(self.progress):
            try:
                while ahead or self.progress.iteration < self.config.iterations:
                    self.control.point()
                    learned = self.learn_ahead(ahead, standing) if self.may_learn(ahead) else None
                    if ahead:
                        judged, ahead = ahead, None
                        row, standing = self.settle(judged, time.monotonic() - last)
                        last = time.monotonic()
                        if learned and row.decision and not row.promoted:
                            learned = self.learn(learned.found, self.progress.iteration, standing)
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

    def may_learn(self, ahead: Ahead | None) -> bool:
        """Not beyond the last iteration, nor when a verdict is there before the next groups: it is obeyed first."""
        if ahead is None:
            return True
        last = self.progress.iteration + 1 == self.config.iterations
        return not last and ahead.verdict is not None and self.source.come_before(ahead.verdict)

    def learn_ahead(self, ahead: Ahead | None, standing: Any) -> Learned:
        """The next update, on top of the one that is being judged, or of what stands."""
        at, before = self.progress, standing
        if ahead:
            version = ahead.candidate.version if ahead.candidate else at.version
            at = replace(ahead.learned.found.progress, iteration=at.iteration + 1, version=version)
            before = ahead.state
        return self.learn(self.source.collect(at), at.iteration, before)

    def hand_on(self, learned: Learned) -> Ahead:
        state = self.world.learner.snapshot()
        if not learned.numbers:
            return Ahead(learned, state)
        with tracing.at(learned.found.traces[0]):
            written = self.deliverer.write(self.progress, learned.numbers, learned.found.consumed, self.buffer.cursor)
            candidate = replace(written, state=state)
            judge = partial(self.deliverer.judge, candidate, self.progress)
            return Ahead(learned, state, candidate, in_background("publishing", judge))

    def settle(self, ahead: Ahead, seconds: float) -> tuple[IterationRow, Any]:
        """Wait for the verdict, obey it, commit the row. Returns it, and the snapshot that stands now."""
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
        self.source.stand(self.progress.version, state)
        return row, state


class GivenAnswers(Collector):
    """A flow of what is there already: only publishing goes on beside the learner."""

    def flowing(self, _at: Progress) -> AbstractContextManager[None]:
        return nullcontext()

    def come_before(self, _news: Future[Any]) -> bool:
        return True

    def stand(self, version: int, state: Any) -> None:
        """Nothing is sampled from it."""


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
    if not config.ahead or replay is not None:
        sampler = Sampler(run_id, config, algorithm, examples, world, control)
        intake = Intake(run_id, config, algorithm, world, buffer, control)
        source = replay or Collector(config, algorithm, world, sampler, intake, control)
        deliverer = Deliverer(run_id, config, heldout, world, control)
        return Loop(run_id, config, algorithm, world, progress, buffer, control, source, deliverer)
    statuses, standing = Statuses(control), StandingPolicy(world.learner)
    learning = statuses.of("learning")
    beside = replace(world, learner=cast("Learner", standing))
    sampler = Sampler(run_id, config, algorithm, examples, beside, statuses.of("sampling"))
    intake = Intake(run_id, config, algorithm, world, buffer, statuses.of("labeling"))
    flow: Flow = Rollouts(config, algorithm, sampler, intake, learning, standing)
    if algorithm.response_sampling.offline:
        flow = GivenAnswers(config, algorithm, world, sampler, intake, learning)
    deliverer = Deliverer(run_id, config, heldout, world, statuses.of("publishing"))
    return Pipeline(run_id, config, algorithm, world, progress, buffer, learning, flow, deliverer)
