"""A crowd whose truth is known: good, noisy, adversarial and always-left annotators, labelling pairs in time order."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from iterpo.labeling.crowd import AnnotatorState, Crowd, Vote
from iterpo.types import Outcome, TaskKind

SIDES = (Outcome.FIRST, Outcome.SECOND)


@dataclass(frozen=True, slots=True)
class Simulation:
    votes: tuple[Vote, ...]
    """In time order."""
    truth: dict[str, Outcome]
    """Item -> the better answer: FIRST or SECOND, equally likely."""
    good: tuple[str, ...]
    noisy: tuple[str, ...]
    adversarial: tuple[str, ...]
    left: tuple[str, ...]
    accuracy: dict[str, float] = field(default_factory=dict)
    """Of everybody but the always-left."""

    @property
    def bad(self) -> tuple[str, ...]:
        return self.noisy + self.adversarial + self.left


@dataclass(slots=True)
class Watched:
    """A crowd that saw a simulation, and how many labels an annotator had given when he first had a state."""

    crowd: Crowd = field(default_factory=Crowd)
    labels: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, int] = field(default_factory=dict)
    doubted: dict[str, int] = field(default_factory=dict)
    """Warned or quarantined."""

    def see(self, vote: Vote) -> None:
        self.crowd.see(vote)
        self.labels[vote.annotator] += 1
        if self.crowd.due:
            self.refresh()

    def refresh(self) -> None:
        for name in self.crowd.refresh():
            state = self.crowd.state(name)
            if state is not AnnotatorState.OK:
                self.doubted.setdefault(name, self.labels[name])
            if state is AnnotatorState.QUARANTINED:
                self.quarantined[name] = self.labels[name]


def watch(seed: int) -> tuple[Simulation, Watched]:
    """A simulation whose annotators are watched from their first label."""
    watched = Watched()
    simulation = simulate(seed, crowd=watched)
    watched.refresh()
    return simulation, watched


def simulate(
    seed: int,
    *,
    good: int = 20,
    good_accuracy: float = 0.85,
    noisy: int = 5,
    adversarial: int = 3,
    left: int = 1,
    overlap: int = 3,
    gold_share: float = 0.1,
    labels: tuple[int, int] = (60, 120),
    crowd: Watched | None = None,
) -> Simulation:
    """Annotators come in random turns until each gave his number of labels, uniform in `labels`.

    Nobody sees an item twice; a new item is opened when he has seen all open ones. Good ones have accuracy 0.85, noisy
    ones a uniform one in [0.5, 0.55], and the adversaries answer alike: of each item all right (one in ten) or
    all wrong.
    """
    rng = random.Random(seed)
    names = {
        kind: tuple(f"{kind}-{i}" for i in range(number))
        for kind, number in {"good": good, "noisy": noisy, "adversarial": adversarial, "left": left}.items()
    }
    accuracy = dict.fromkeys(names["good"], good_accuracy) | {name: rng.uniform(0.5, 0.55) for name in names["noisy"]}
    accuracy |= dict.fromkeys(names["adversarial"], 0.1)
    everybody = [name for group in names.values() for name in group]
    turns = [name for name in everybody for _ in range(rng.randint(*labels))]
    rng.shuffle(turns)
    pool = _Pool(rng, overlap, len(everybody))
    votes = []
    for number, name in enumerate(turns):
        item = pool.draw(name, max(gold_share, crowd.crowd.doubt(name)) if crowd else gold_share)
        votes.append(_vote(rng, number, name, item, pool, accuracy))
        if crowd:
            crowd.see(votes[-1])
    return Simulation(
        tuple(votes), pool.truth, names["good"], names["noisy"], names["adversarial"], names["left"], accuracy
    )


class _Pool:
    """Items that still need labels; gold ones are shown to everybody."""

    def __init__(self, rng: random.Random, overlap: int, annotators: int) -> None:
        self._rng, self._overlap, self._annotators = rng, overlap, annotators
        self.truth: dict[str, Outcome] = {}
        self.coordinated: dict[str, bool] = {}
        """Item -> whether the adversaries are all right about it."""
        self._open: dict[bool, dict[str, set[str]]] = {True: {}, False: {}}

    def draw(self, annotator: str, gold_share: float) -> str:
        gold = self._rng.random() < gold_share
        items = self._open[gold]
        fresh = [item for item, seen in items.items() if annotator not in seen]
        # Few items are open at a time, so that overlap comes about soon: as in a queue, oldest first.
        item = fresh[0] if fresh else self._new(gold)
        items[item].add(annotator)
        if len(items[item]) == (self._annotators if gold else self._overlap):
            del items[item]
        return item

    def _new(self, gold: bool) -> str:
        item = f"{'gold' if gold else 'pair'}-{len(self.truth)}"
        self.truth[item] = self._rng.choice(SIDES)
        self.coordinated[item] = self._rng.random() < 0.1
        self._open[gold][item] = set()
        return item


def _vote(rng: random.Random, number: int, name: str, item: str, pool: _Pool, accuracy: dict[str, float]) -> Vote:
    swapped, truth = rng.random() < 0.5, pool.truth[item]
    other = SIDES[truth is Outcome.FIRST]
    if name.startswith("left"):
        outcome = Outcome.SECOND if swapped else Outcome.FIRST
    elif name.startswith("adversarial"):
        outcome = truth if pool.coordinated[item] else other
    else:
        outcome = truth if rng.random() < accuracy[name] else other
    is_gold = item.startswith("gold")
    return Vote(
        item,
        name,
        outcome,
        swapped,
        rng.uniform(3, 30),
        10.0 * (number + 1),
        TaskKind.GOLD if is_gold else TaskKind.COMPARISON,
        truth if is_gold else None,
        f"v{number}",
    )
