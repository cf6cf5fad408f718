"""The loop in simulated time: what waits for what is that of iterpo/iterate.py and, ahead, of iterpo/pipeline.py and
iterpo/rollouts.py."""

from __future__ import annotations

import random
import statistics

import simpy

from benchmarks.scale.cores import Cores, Waiting
from benchmarks.scale.costs import Costs
from benchmarks.scale.plan import Outcome, Plan


def simulate(plan: Plan, costs: Costs) -> Outcome:
    """Raises ValueError for a plan without anybody to do a part."""
    if min(plan.prompts, plan.answers, plan.labelers, plan.replicas, plan.ranks, plan.iterations) < 1:
        raise ValueError(f"Every part of {plan} needs one at least.")
    return _Loop(plan, costs).outcome()


class _Loop:
    def __init__(self, plan: Plan, costs: Costs) -> None:
        self.plan, self.costs = plan, costs
        self.clock = simpy.Environment()
        self.draw = random.Random(plan.seed)
        self.engines = [Cores(self.clock) for _ in range(plan.replicas)]
        self.learner = self.engines[0] if plan.one_machine else Cores(self.clock)
        self.labelers = simpy.Resource(self.clock, plan.labelers)
        self.labelled = 0.0
        """Seconds in which labelers labelled, of all of them."""
        self.engine_work, self.learner_work = 0.0, 0.0
        self.version = 0
        self.complete: list[int] = []
        """The groups with their labels: the versions that answered them."""
        self.labelled_group = self.clock.event()
        """The next one."""
        self.places = simpy.Container(self.clock, init=plan.prompts * max(1, plan.ahead))
        self.rows: list[float] = []
        self.ages: list[int] = []

    def outcome(self) -> Outcome:
        if self.plan.ahead:
            self.clock.process(self._sampling())
            done = self.clock.process(self._learning_ahead())
        else:
            done = self.clock.process(self._one_thing_after_the_other())
        self.clock.run(done)
        plan, total = self.plan, self.clock.now
        seconds = [after - before for before, after in zip([0.0, *self.rows], self.rows, strict=False)]
        busy = {
            "engine": self.engine_work / total / plan.replicas,
            "labelers": self.labelled / total / plan.labelers,
            "learner": self.learner_work / total,
        }
        return Outcome(statistics.mean(seconds[len(seconds) // 4 :]), busy, statistics.mean(self.ages))

    def _one_thing_after_the_other(self) -> Waiting:
        for _ in range(self.plan.iterations):
            yield from self._answer(self.plan.prompts)
            yield from self._enough()
            yield from self._learn()
            yield from self._judge()
            self._commit()

    def _sampling(self) -> Waiting:
        """A batch at most, whenever there is room before the learner."""
        while True:
            yield self.places.get(1)
            room = 1 + min(int(self.places.level), self.plan.prompts - 1)
            if room > 1:
                yield self.places.get(room - 1)
            yield from self._answer(room)

    def _learning_ahead(self) -> Waiting:
        """An update builds on the candidate that is being judged; a verdict that is there first is obeyed first."""
        verdict: simpy.Event | None = None
        learned = 0
        while len(self.rows) < self.plan.iterations:
            enough, fresh = self.clock.process(self._enough()), False
            if verdict and learned < self.plan.iterations:
                yield enough | verdict
            if learned < self.plan.iterations and (verdict is None or enough.triggered):
                yield enough
                yield from self._learn()
                learned, fresh = learned + 1, True
            if verdict:
                yield verdict
                self._commit()
            verdict = self.clock.process(self._judge()) if fresh else None

    def _enough(self) -> Waiting:
        """Until an iteration's groups are complete. They are taken when they are used."""
        while len(self.complete) < self.plan.prompts:
            yield self.labelled_group

    def _answer(self, prompts: int) -> Waiting:
        """Sample, and hand out to the labelers."""
        version = self.version
        yield from self._on_engines(prompts * self.plan.answers)
        for _ in range(prompts):
            self.clock.process(self._label(version))

    def _on_engines(self, answers: int) -> Waiting:
        plan = self.plan
        shares = [answers // plan.replicas + (n < answers % plan.replicas) for n in range(plan.replicas)]
        works = [self.costs.answers(share, plan.tokens) for share in shares]
        self.engine_work += sum(works)
        yield self.clock.all_of([e.work(w) for e, w in zip(self.engines, works, strict=True) if w])

    def _label(self, version: int) -> Waiting:
        yield self.clock.all_of([self.clock.process(self._one_label()) for _ in range(self.plan.labels)])
        self.complete.append(version)
        self.labelled_group.succeed()
        self.labelled_group = self.clock.event()

    def _one_label(self) -> Waiting:
        with self.labelers.request() as turn:
            yield turn
            spread = self.plan.label_spread
            # exp(N(-s^2/2, s)) has mean 1
            seconds = self.plan.label_seconds * self.draw.lognormvariate(-(spread**2) / 2, spread)
            yield self.clock.timeout(seconds)
            self.labelled += seconds

    def _learn(self) -> Waiting:
        plan = self.plan
        taken, self.complete = self.complete[: plan.prompts], self.complete[plan.prompts :]
        self.places.put(plan.prompts)
        self.ages += [self.version - version for version in taken]
        tokens = plan.prompts * plan.answers * plan.tokens
        yield self._on_learner(self.costs.update_of(tokens, plan.ranks, plan.reduced_bytes, plan.link_bytes_per_second))

    def _on_learner(self, seconds: float) -> simpy.Event:
        self.learner_work += seconds
        return self.learner.work(seconds)

    def _judge(self) -> Waiting:
        """Every replica loads and proves the candidate; the held-out prompts are answered, then compared."""
        self.engine_work += self.costs.load * len(self.engines)
        yield self.clock.all_of([engine.work(self.costs.load) for engine in self.engines])
        yield from self._on_engines(self.plan.heldout)
        yield self._on_learner(self.costs.judged_answer * self.plan.heldout / self.plan.ranks)
        yield self._on_learner(self.costs.settle)
        self.version += 1

    def _commit(self) -> None:
        self.rows.append(self.clock.now)
