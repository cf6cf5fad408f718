"""`python -m benchmarks.label_quality`: how soon bad annotators are found, and what an attack by a few of them costs.

The crowd: tests/labeling/simulated_crowd.py (20 good ones of accuracy 0.85, 5 noisy at 0.5-0.55, 3 who give the same
wrong answers in nine of ten items, 1 always-left; overlap 3, 60-120 labels each), refreshed every 50 votes. 10 % of
what people are shown is gold, and more for those who are doubted, as PeopleDesk does.

The attack: 50 prompts of 8 answers each, with a true utility and a trait that has nothing to do with it. 1,000 pairs
are drawn from a start policy and labelled by 3 people each; 10 % of what people are shown is gold. 38 honest
annotators are right with probability 0.85; 2 more (5 %) always choose the answer with more of the trait and label 12
times as fast as the others. A tabular softmax policy learns by DPO's gradient (beta 0.5, full batch, 300 steps) from
    (a) honest: the 38 alone, every pair's mean vote, weighted by the number of votes
    (b) attacked: all 40, aggregated as in (a)
    (a') honest and protected: the 38, as in (c): aggregation that knows who is good beats mean votes by itself
    (c) protected: all 40, `Crowd` refreshed every 50 votes, `vote_weight`, quarantined ones shown gold only,
        `aggregate`
and its win rate against the start policy, by true utility (ties half), is exact: a sum over answers. The damage left is
(a - c) / (a - b) of the mean win rates, and (a' - c) / (a - b) with the gain of aggregation taken out. Not modelled:
attackers who recognise gold and answer it right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iterpo.labeling.crowd import AnnotatorState, Crowd, Vote, aggregate
from iterpo.types import Outcome, TaskKind
from tests.labeling.simulated_crowd import watch

Floats = npt.NDArray[np.float64]
PROMPTS, ANSWERS, PAIRS, OVERLAP = 50, 8, 1_000, 3
HONEST, ATTACKERS, ACCURACY, SPEED, GOLD_SHARE = 38, 2, 0.85, 12.0, 0.1
NEVER = float("inf")
BETA, STEPS, RATE = 0.5, 300, 2.0


def measure_label_quality(crowd_seeds: int = 50, attack_seeds: int = 10) -> dict[str, dict[str, float]]:
    return {"crowd": measure_crowd(crowd_seeds), "attack": measure_attack(attack_seeds)}


# The crowd.


def measure_crowd(seeds: int) -> dict[str, float]:
    """Over all seeds: shares of the annotators, and the worst seed."""
    runs = [watch(seed) for seed in range(seeds)]

    def share(group: str, found: str, within: float = 1_000) -> float:
        labels: list[float] = [getattr(w, found).get(name, NEVER) for s, w in runs for name in getattr(s, group)]
        return round(sum(n <= within for n in labels) / len(labels), 4)

    plotters = [w.quarantined.get(name, 999) for s, w in runs for name in s.adversarial + s.left]
    gold = [sum(v.kind is TaskKind.GOLD for v in s.votes if v.annotator in s.good) for s, w in runs]
    labels_of_good = [sum(v.annotator in s.good for v in s.votes) for s, w in runs]
    warned = [sum(w.crowd.state(n) is AnnotatorState.WARNED for n in s.good) for s, w in runs]
    return {
        "seeds": seeds,
        "adversarial_quarantined": share("adversarial", "quarantined"),
        "left_quarantined": share("left", "quarantined"),
        "adversarial_or_left_most_labels_before_quarantine": max(plotters),
        "noisy_quarantined_within_60": share("noisy", "quarantined", 60),
        "noisy_quarantined": share("noisy", "quarantined"),
        "noisy_doubted_within_60": share("noisy", "doubted", 60),
        "all_9_quarantined_within_60_share_of_seeds": round(
            float(np.mean([all(w.quarantined.get(n, 999) <= 60 for n in s.bad) for s, w in runs])), 3
        ),
        "good_gold_share": round(sum(gold) / sum(labels_of_good), 3),
        "good_quarantined": share("good", "quarantined"),
        "good_ever_warned": share("good", "doubted"),
        "good_warned_at_end_worst_seed": max(warned),
    }


# The attack.


@dataclass(frozen=True, slots=True)
class World:
    utility: Floats
    """[prompts, answers]"""
    trait: Floats
    """[prompts, answers], independent of `utility`."""
    start: Floats
    """[prompts, answers] logits."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> World:
        return cls(*(rng.normal(size=(PROMPTS, ANSWERS)) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class Pair:
    prompt: int
    first: int
    second: int

    def better(self, by: Floats) -> Outcome:
        return Outcome.FIRST if by[self.prompt, self.first] > by[self.prompt, self.second] else Outcome.SECOND


@dataclass(frozen=True, slots=True)
class Learned:
    """What the policy learns from."""

    pair: Pair
    p_first_wins: float
    weight: float


class Workplace:
    """Annotators come, each as often as he is fast, and label what they are shown."""

    def __init__(self, world: World, rng: np.random.Generator, attackers: int, protected: bool) -> None:
        self.world, self.rng, self.protected = world, rng, protected
        self.crowd = Crowd()
        self.speed = {f"honest-{i}": 1.0 for i in range(HONEST)} | {f"attacker-{i}": SPEED for i in range(attackers)}
        self.votes: list[tuple[Pair, list[tuple[str, Outcome, int, float]]]] = []
        self._time = 0

    def label(self, pair: Pair) -> None:
        given: list[tuple[str, Outcome, int, float]] = []
        self.votes.append((pair, given))
        while len(given) < OVERLAP:
            name = self._comes([name for name, *_ in given])
            if self.rng.random() < GOLD_SHARE or self.crowd.state(name) is AnnotatorState.QUARANTINED:
                self._show(name, self.draw_pair(), f"gold-{self._time}", gold=True)
            else:
                weight = self.crowd.vote_weight(name) if self.protected else 1.0
                given.append((name, self._show(name, pair, f"pair-{len(self.votes)}", gold=False), 0, weight))

    def draw_pair(self) -> Pair:
        prompt = int(self.rng.integers(PROMPTS))
        first, second = self.rng.choice(ANSWERS, 2, replace=False, p=softmax(self.world.start)[prompt])
        return Pair(prompt, int(first), int(second))

    def learned(self) -> list[Learned]:
        if not self.protected:
            return [Learned(pair, _share(votes), len(votes)) for pair, votes in self.votes]
        found = []
        for pair, votes in self.votes:
            a = aggregate([(n, o, s, min(w, self.crowd.weight(n))) for n, o, s, w in votes], self.crowd)
            found.append(Learned(pair, a.p_first_wins, a.weight))
        return found

    def _comes(self, seen: list[str]) -> str:
        names = [name for name in self.speed if name not in seen]
        speed = np.array([self.speed[name] for name in names])
        return str(self.rng.choice(names, p=speed / speed.sum()))

    def _show(self, name: str, pair: Pair, item: str, gold: bool) -> Outcome:
        self._time += 1
        truth = pair.better(self.world.utility)
        right = self.rng.random() < ACCURACY
        outcome = truth if right else Outcome.SECOND if truth is Outcome.FIRST else Outcome.FIRST
        if name.startswith("attacker"):
            outcome = pair.better(self.world.trait)
        if self.protected:
            kind = TaskKind.GOLD if gold else TaskKind.COMPARISON
            swapped = bool(self.rng.random() < 0.5)
            at, vote_id = float(self._time), f"v{self._time}"
            self.crowd.see(Vote(item, name, outcome, swapped, 5.0, at, kind, truth if gold else None, vote_id))
            if self.crowd.due:
                self.crowd.refresh()
        return outcome


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def train(start: Floats, learned: list[Learned]) -> Floats:
    """Logits after DPO (Rafailov 2023, equation 7, with soft labels); the start policy is the reference."""
    prompt, first, second = (np.array([getattr(x.pair, key) for x in learned]) for key in ("prompt", "first", "second"))
    p, weight = np.array([x.p_first_wins for x in learned]), np.array([x.weight for x in learned])
    logits = start.copy()
    for _ in range(STEPS):
        moved = logits - start
        margin = BETA * (moved[prompt, first] - moved[prompt, second])
        push = RATE * BETA * (weight / weight.mean()) * (p - 1.0 / (1.0 + np.exp(-margin))) * PROMPTS / len(learned)
        np.add.at(logits, (prompt, first), push)
        np.add.at(logits, (prompt, second), -push)
    return logits


def win_rate(world: World, logits: Floats) -> float:
    """P(an answer of the trained policy has more utility than one of the start policy), ties half."""
    better = np.sign(world.utility[:, :, None] - world.utility[:, None, :]) / 2.0 + 0.5
    return float(np.einsum("pa,pab,pb->p", softmax(logits), better, softmax(world.start)).mean())


def attacked_win_rate(seed: int, attackers: int, protected: bool) -> float:
    world = World.drawn(np.random.default_rng(seed))
    workplace = Workplace(world, np.random.default_rng(seed + 1_000), attackers, protected)
    for _ in range(PAIRS):
        workplace.label(workplace.draw_pair())
    return win_rate(world, train(world.start, workplace.learned()))


def measure_attack(seeds: int) -> dict[str, float]:
    """Mean win rates over the seeds, and how much of the damage is left."""
    ways = {"honest": (0, False), "attacked": (ATTACKERS, False), "protected": (ATTACKERS, True)}
    ways["honest_protected"] = (0, True)
    rates = {name: np.array([attacked_win_rate(s, *way) for s in range(seeds)]) for name, way in ways.items()}
    a, b, c = (rates[name] for name in ("honest", "attacked", "protected"))
    return {
        "seeds": seeds,
        **{f"win_rate_{name}": round(float(found.mean()), 4) for name, found in rates.items()},
        "least_damage_unprotected": round(float((a - b).min()), 4),
        "damage_left": round(float((a - c).mean() / (a - b).mean()), 3),
        "damage_left_of_protected": round(float((rates["honest_protected"] - c).mean() / (a - b).mean()), 3),
        "damage_left_worst_seed": round(float(((a - c) / (a - b)).max()), 3),
    }


def _share(votes: list[tuple[str, Outcome, int, float]]) -> float:
    return sum(outcome is Outcome.FIRST for _, outcome, _, _ in votes) / len(votes)


def main() -> None:
    print(json.dumps(measure_label_quality(), indent=1))


if __name__ == "__main__":
    main()
