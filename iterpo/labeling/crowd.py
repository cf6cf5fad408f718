"""`Crowd`: how far each annotator can be trusted, kept in memory and fed with every committed label.

    label stored --see--> window --refresh: gather--> evidence --judge--> verdicts --> states, confusions
    next label   <--vote_weight-- state, influence window          preference <--aggregate-- confusions

`see`, `state`, `weight`, `vote_weight`, `doubt` and `confusion` take microseconds and may be called inside a
transaction; `refresh` takes a fraction of a second and works on a copy of the votes, outside the lock.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from iterpo.labeling.aggregate import PRIOR_CONFUSION, Aggregate, aggregate
from iterpo.labeling.agreement import Agreement, cohen_kappa, krippendorff_alpha
from iterpo.labeling.annotator import MACHINE, Interval, Profile, Rate, Vote
from iterpo.labeling.crowd_settings import CrowdSettings
from iterpo.labeling.dawid_skene import Confusion
from iterpo.labeling.evidence import gather
from iterpo.labeling.influence import InfluenceWindow
from iterpo.labeling.judgement import Verdict, habits_of, interval, judge, share_posterior
from iterpo.labeling.vote_window import VoteWindow
from iterpo.types import AnnotatorState, Outcome, TaskKind

__all__ = [
    "Aggregate",
    "AnnotatorState",
    "Crowd",
    "CrowdSettings",
    "InfluenceWindow",
    "Interval",
    "Profile",
    "Rate",
    "Vote",
    "aggregate",
]

FIXED = (AnnotatorState.QUARANTINED, AnnotatorState.EXCLUDED)
"""States that only a lead ends."""


class Crowd:
    def __init__(self, settings: CrowdSettings | None = None) -> None:
        self.settings = settings or CrowdSettings()
        self.influence = InfluenceWindow(
            self.settings.influence_votes, self.settings.max_share, self.settings.free_votes
        )
        self._window = VoteWindow(self.settings.window_items)
        self._states: dict[str, tuple[AnnotatorState, tuple[str, ...]]] = {}
        self._judged_after: dict[str, float] = {}
        """Annotator -> votes up to this time (seconds since the epoch) are not held against a readmitted one."""
        self._verdicts: dict[str, Verdict] = {}
        self._stranger = judge(np.empty(0), (), self.settings)
        self._confusions: Mapping[str, Confusion] = {}
        self._history: dict[str, deque[tuple[float, float]]] = defaultdict(self._new_history)
        self._latest = 0.0
        self._unrefreshed = 0
        self._lock = threading.Lock()

    # What labels change.

    def see(self, vote: Vote) -> None:
        """Remember a committed vote; one seen before changes nothing."""
        with self._lock:
            if self._window.add(vote):
                self._latest = max(self._latest, vote.at)
                self._unrefreshed += 1

    def forget(self, vote_id: str) -> None:
        """An undone label. What it counted in the influence window stays."""
        with self._lock:
            if self._window.remove(vote_id):
                self._unrefreshed += 1

    # What leads decide.

    def exclude(self, annotator: str, reason: str) -> None:
        self.set_state(annotator, AnnotatorState.EXCLUDED, reason)

    def readmit(self, annotator: str, at: float | None = None) -> None:
        """Start anew from the prior: votes up to `at` (default: the latest seen) are neither judged nor
        counted again."""
        self.set_state(annotator, AnnotatorState.OK, at=at)

    def set_state(self, annotator: str, state: AnnotatorState, reason: str = "", at: float | None = None) -> None:
        """A lead's decision, or a state taken up after a restart; `at`: when a lead readmitted the person, if ever."""
        with self._lock:
            self._states[annotator] = (state, (reason,) if reason else ())
            if state is AnnotatorState.OK or at is not None:
                self._judged_after[annotator] = self._latest if at is None else at
                self._verdicts.pop(annotator, None)
                self._confusions = {name: c for name, c in self._confusions.items() if name != annotator}

    # What a transaction asks.

    def state(self, annotator: str) -> AnnotatorState:
        return self._states[annotator][0] if annotator in self._states else AnnotatorState.OK

    def states(self) -> dict[str, AnnotatorState]:
        """Of everybody who ever had another one than OK."""
        with self._lock:
            return {name: state for name, (state, _) in self._states.items()}

    def weight(self, annotator: str) -> float:
        """What the annotator's votes count, in [0, 1], however many there are."""
        state = self.state(annotator)
        if state in FIXED:
            return 0.0
        return self.settings.warned_weight if state is AnnotatorState.WARNED else 1.0

    def vote_weight(self, annotator: str) -> float:
        """The next vote's weight, under the influence cap; it is recorded as given. A machine is not capped: it answers
        what it is asked, is audited, and can be taken out by one decision."""
        if MACHINE in annotator:
            return self.weight(annotator)
        with self._lock:
            return self.influence.allow(annotator, self.weight(annotator))

    def doubt(self, annotator: str) -> float:
        """How probably the annotator is too unreliable to be counted: P(accuracy < quarantine_below), the prior's of
        somebody nobody knows, 1 of the quarantined. Whom the crowd doubts it should test: the good are cleared within a
        few labels, and the bad found as soon as can be."""
        if self.state(annotator) in FIXED:
            return 1.0
        verdict = self._verdicts.get(annotator)
        return self._stranger.doubt if verdict is None else verdict.doubt

    def confusion(self, annotator: str) -> Confusion:
        """[true class][answer] over first, second, tie; the prior's of somebody nobody knows."""
        return self._confusions.get(annotator, PRIOR_CONFUSION)

    # The work.

    @property
    def due(self) -> bool:
        """Whether enough labels came or went for a refresh."""
        return self._unrefreshed >= self.settings.refresh_votes

    def refresh(self) -> list[str]:
        """Judge everybody on the votes in the window; returns those whose state changed, sorted."""
        with self._lock:
            by_item, judged_after = self._window.by_item(), dict(self._judged_after)
            weights = {name: self.weight(name) for name in self._window.annotators()}
            self._unrefreshed = 0
        counted = {item: _after(votes, judged_after) for item, votes in by_item.items()}
        evidence = gather(counted, weights, self.settings.confusion_votes)
        verdicts = {
            name: judge(evidence.right.get(name, np.empty(0)), votes, self.settings)
            for name, votes in _by_annotator(counted).items()
        }
        with self._lock:
            return self._publish(verdicts, evidence.confusions, judged_after)

    def _publish(
        self, verdicts: Mapping[str, Verdict], confusions: Mapping[str, Confusion], judged_after: Mapping[str, float]
    ) -> list[str]:
        # Somebody readmitted meanwhile was judged by votes that no longer count.
        meanwhile = {name for name, at in self._judged_after.items() if judged_after.get(name) != at}
        self._confusions = {name: c for name, c in confusions.items() if name not in meanwhile}
        changed = []
        for name in sorted(verdicts.keys() - meanwhile):
            verdict = self._verdicts[name] = verdicts[name]
            if verdict.judged:
                self._history[name].append((self._latest, verdict.accuracy.mean))
            before = self.state(name)
            if before not in FIXED:
                self._states[name] = (verdict.state, verdict.reasons)
                changed += [name] if verdict.state is not before else []
        return changed

    # What leads see.

    def profile(self, annotator: str) -> Profile:
        with self._lock:
            votes, labels = self._window.of(annotator), self._window.labels[annotator]
        habits = habits_of(votes, self.settings.min_seconds)
        verdict = self._verdicts.get(annotator, self._stranger)
        state, reasons = self._states.get(annotator, (AnnotatorState.OK, ()))
        return Profile(
            annotator=annotator,
            state=state,
            reasons=reasons,
            labels=labels,
            accuracy=verdict.accuracy,
            judged=verdict.judged,
            gold=habits.gold,
            self_consistency=habits.self_consistency,
            left_share=interval(share_posterior(habits.left)),
            median_seconds=habits.median_seconds,
            too_fast_share=habits.too_fast_share,
            weight=self.weight(annotator),
        )

    def profiles(self) -> list[Profile]:
        """Of all who labelled or were decided on, by name."""
        with self._lock:
            names = sorted(self._window.labels.keys() | self._states.keys())
        return [self.profile(name) for name in names]

    def history(self, annotator: str) -> list[tuple[float, float]]:
        """(seconds since the epoch, mean accuracy), one a refresh, oldest first."""
        with self._lock:
            return list(self._history.get(annotator, ()))

    def agreement(self) -> Agreement:
        """Krippendorff's alpha over the kept items, machines' second opinions among them; ties and both_bad are
        symbols of their own."""
        return krippendorff_alpha({item: list(said.values()) for item, said in self._symbols().items()})

    def pair_agreement(self, annotator: str, other: str) -> Agreement:
        """Cohen's kappa over the kept items that both labelled."""
        said = self._symbols().values()
        return cohen_kappa([(by[annotator], by[other]) for by in said if annotator in by and other in by])

    def agreement_with_people(self, annotator: str) -> Agreement:
        """Cohen's kappa of a machine labeler with the people who labelled the same items, each of them a pair."""
        pairs = [
            (by[annotator], symbol)
            for by in self._symbols().values()
            for name, symbol in by.items()
            if annotator in by and name != annotator and MACHINE not in name
        ]
        return cohen_kappa(pairs)

    def _symbols(self) -> dict[str, dict[str, Hashable]]:
        """Item -> annotator -> what he said of it first; skips say nothing, repeats say it again."""
        with self._lock:
            by_item = self._window.by_item()
        return {
            item: {
                v.annotator: v.outcome
                for v in reversed(votes)
                if v.kind is not TaskKind.REPEAT and v.outcome is not Outcome.SKIP
            }
            for item, votes in by_item.items()
        }

    def _new_history(self) -> deque[tuple[float, float]]:
        return deque(maxlen=self.settings.history_points)


def _after(votes: Sequence[Vote], times: Mapping[str, float]) -> list[Vote]:
    return [v for v in votes if v.at > times.get(v.annotator, -np.inf)]


def _by_annotator(by_item: Mapping[str, Sequence[Vote]]) -> dict[str, list[Vote]]:
    found: dict[str, list[Vote]] = defaultdict(list)
    for votes in by_item.values():
        for vote in votes:
            found[vote.annotator].append(vote)
    return found
