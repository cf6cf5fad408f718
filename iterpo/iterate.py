"""The synchronous loop: sample, collect feedback, update, publish, prove, gate, promote, commit. On one screen.

prompts --axis 1--> generator --axis 2--> feedback store --labels--> buffer --axis 3--> learner
   ^                                                                                       |
   |                                    serving <--promote-- gate <--proof-- load <--publish
   +---------------------------------------------------------------------------------------+

`pipeline.py` has the same with everything at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from iterpo import tracing
from iterpo.algorithms import Algorithm
from iterpo.buffer import GroupBuffer
from iterpo.deliver import Deliverer, Delivery
from iterpo.intake import Collected
from iterpo.patience import Control
from iterpo.ports import World
from iterpo.response_sampling import own
from iterpo.run_config import RunConfig
from iterpo.types import IterationRow, Progress


class Source(Protocol):
    """Where an iteration's groups come from."""

    def collect(self, at: Progress) -> Collected:
        """Of the next iteration, for an update of the version that `at` names."""
        ...

    def remember(self, at: Progress) -> None:
        """What earlier iterations left, after a restart."""
        ...

    def sampled(self) -> tuple[int, float]:
        """How many tokens were sampled since this was last asked, and the seconds that it took."""
        ...


@dataclass(frozen=True)
class Learned:
    """An update, and what it was made of."""

    found: Collected
    before: Any
    """The learner's snapshot."""
    numbers: Mapping[str, float]
    """Empty: there was nothing to learn from (all groups uniform, say), which is no update, and no new version."""
    dropped: Counter[str] = field(default_factory=Counter)


class Loop:
    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        algorithm: Algorithm,
        world: World,
        progress: Progress,
        buffer: GroupBuffer,
        control: Control,
        source: Source,
        deliverer: Deliverer,
    ) -> None:
        self.run_id, self.config, self.algorithm, self.world = run_id, config, algorithm, world
        self.progress, self.buffer, self.control = progress, buffer, control
        self.source, self.deliverer = source, deliverer

    def iterations(self) -> Iterator[IterationRow]:
        """One committed row an iteration, from wherever `progress` stands to the last."""
        self.begin()
        while self.progress.iteration < self.config.iterations:
            self.control.point()
            started = time.monotonic()
            learned = self.learn(self.source.collect(self.progress), self.progress.iteration)
            delivery = None
            if self.delivers(learned):
                with tracing.at(learned.found.traces[0]):
                    candidate = self.deliverer.write(
                        self.progress, learned.numbers, learned.found.consumed, self.buffer.cursor
                    )
                    delivery = self.deliverer.judge(candidate, self.progress)
            if delivery and not delivery.decision.promote:
                self.world.learner.restore(learned.before)
            row = self.row(learned, delivery, time.monotonic() - started)
            self.commit(row, learned.found)
            yield row

    def begin(self) -> None:
        self.progress = self.deliverer.begin(self.progress)
        self.source.remember(self.progress)

    def learn(self, found: Collected, iteration: int, before: Any = None) -> Learned:
        """Axis 3. `before`: the learner's snapshot, where there is one already."""
        groups = found.groups + found.replayed
        selection = self.algorithm.response_sampling.select(groups, self.config.seed + iteration)
        before = self.world.learner.snapshot() if before is None else before
        self.control.status(f"updating on {len(selection.completions)} completions", False)
        [trace, *others] = found.traces
        with tracing.span("update", trace, others, run=self.run_id, iteration=iteration + 1):
            numbers = self.world.learner.update(selection) if selection.completions else {}
        if numbers:
            self.world.keep(iteration + 1, self.world.learner.batch)
        return Learned(found, before, numbers, found.dropped + selection.dropped)

    def delivers(self, learned: Learned) -> bool:
        """A replay's iterations in between are nobody's policy: only its last one delivers a candidate."""
        if self.config.replay_of:
            return self.progress.iteration + 1 == self.config.iterations
        return bool(learned.numbers)

    def row(self, learned: Learned, delivery: Delivery | None, seconds: float) -> IterationRow:
        sampler, groups = self.algorithm.response_sampling, learned.found.groups
        sampled = [(g, c) for g in groups for c in own(sampler, g)]
        rewards = [g.rewards[c.completion_id] for g, c in sampled if c.completion_id in g.rewards]
        promoted = bool(delivery and delivery.decision.promote)
        waits = {f"wait_{name}_seconds": wait for name, wait in learned.found.waits.items()}
        ages = {f"policy_age_{name}": age for name, age in learned.found.ages.items()}
        labelled = [g.labelled_at for g in groups if g.labelled_at is not None]
        lag = {}
        if labelled and promoted:
            lag = {"label_to_served_seconds": time.time() - sum(labelled) / len(labelled)}
        tokens, sampling = self.source.sampled()
        counts = self.counts("dropped", learned.dropped) | self.counts("late", self.buffer.late)
        parts = {"sampled_tokens": float(tokens)}
        if tokens:
            parts |= {"sampling_seconds": sampling}
        if delivery and delivery.proved:
            parts |= {"judging_seconds": delivery.judging_seconds}
        return IterationRow(
            run_id=self.run_id,
            iteration=self.progress.iteration + 1,
            policy_version=delivery.version if delivery and promoted else self.progress.version,
            promoted=promoted,
            proved=bool(delivery and delivery.proved),
            train_reward=sum(rewards) / len(rewards) if rewards else float("nan"),
            heldout_reward=delivery.heldout if delivery else self.progress.heldout_serving,
            kl=delivery.kl if delivery else 0.0,
            swap_ms=delivery.swap_ms if delivery else 0.0,
            load_ms=delivery.load_ms if delivery else 0.0,
            tokens_per_second=tokens / sampling if sampling else 0.0,
            seconds=seconds,
            metrics={**learned.numbers, **waits, **ages, **lag, **counts, **parts},
            decision=delivery.decision if delivery else None,
        )

    @staticmethod
    def counts(name: str, counter: Counter[str]) -> dict[str, float]:
        return {f"{name}_{reason}": float(n) for reason, n in counter.items() if n}

    def commit(self, row: IterationRow, found: Collected, state: Any = None) -> None:
        """Checkpoint first (of `state`, or of the learner as it is), then the transaction that names it: a crash in
        between repeats the iteration."""
        self.buffer.commit(found.consumed)
        self.progress = replace(
            found.progress,
            iteration=row.iteration,
            cursor=self.buffer.resume_cursor,
            version=row.policy_version,
            heldout_before=self.progress.heldout_before,
            heldout_serving=row.heldout_reward if row.promoted else self.progress.heldout_serving,
        )
        name = f"{row.iteration:06d}"
        self.world.learner.save(self.world.checkpoints / name, state)
        self.world.commit(row, self.progress, name, found.consumed)
