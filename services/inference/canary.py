"""While a version is the canary: what live traffic says of it is counted, and its sequential test decides.

Failures are counted where requests end (PolicyRegistry._left). Feedback comes from the labeling service, as it does for
the learner: thumbs, the first of each user on either side, and duels, preferences between an answer of the canary and
one of the version that serves. Answers whose version is not known, because an application sent back a text of its own,
count for neither. What somebody takes back later stays counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from iterpo.clients.labeling import LabelingClient
from iterpo.config import CanarySettings
from iterpo.errors import IterpoError
from iterpo.policies.canary import Tally, Verdict, judge
from iterpo.types import USER, FeedbackEvent
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry
from services.inference.registry_file import Trial
from services.inference.replicas import added

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""A stream of feedback ends after this long without any; the next one goes on where it ended."""
REMEMBERED_ANSWERS = 100_000
LIKED = 0.5


class CanaryKeeper:
    def __init__(
        self,
        registry: PolicyRegistry,
        settings: CanarySettings,
        metrics: InferenceMetrics,
        labeling: Callable[[], LabelingClient],
        elsewhere: Callable[[int], Tally] = lambda _version: Tally(),
    ) -> None:
        """`labeling` makes a client; the service need not be there. `elsewhere`: what replicas saw of the canary."""
        self._registry, self._settings, self._metrics = registry, settings, metrics
        self._connect, self._elsewhere = labeling, elsewhere
        self._labeling: LabelingClient | None = None
        self._votes = Votes()
        self._heard: tuple[Trial | None, set[tuple[str, int]]] = (None, set())
        """The canary, and (user, version) of the thumbs that were counted for it."""

    async def run(self) -> None:
        """Until it is cancelled."""
        listening: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(PERIOD_SECONDS)
                trial = self._registry.trial
                if trial is None:
                    continue
                if listening is None or listening.done():
                    listening = asyncio.create_task(self._listen(trial))
                await self._decide(trial)
        finally:
            if listening is not None:
                listening.cancel()

    async def _decide(self, trial: Trial) -> None:
        tally = added(trial.tally, self._elsewhere(trial.version))
        self._show(tally)
        found = judge(self._settings, tally, time.time() - trial.began_unix_seconds)
        if found.verdict is Verdict.HOLD:
            self._registry.save_trial()
        elif await self._registry.conclude(trial, found):
            logger.warning("canary %d: %s %s", trial.version, found.verdict, "; ".join(found.reasons))
            self._metrics.canary_verdicts.labels(found.verdict).inc()
            if found.verdict is Verdict.PROMOTE:
                self._metrics.swaps.labels("canary").inc()

    def _show(self, tally: Tally) -> None:
        for name, arm in (("canary", tally.canary), ("serving", tally.serving)):
            for what in ("answered", "failed", "good", "bad"):
                self._metrics.canary.labels(name, what).set(getattr(arm, what))
        self._metrics.canary.labels("canary", "duels_won").set(tally.duels_won)
        self._metrics.canary.labels("canary", "duels_lost").set(tally.duels_lost)

    async def _listen(self, trial: Trial) -> None:
        """Feedback since the cursor; ends when none comes for a while."""
        loop = asyncio.get_running_loop()

        def follow() -> None:
            self._labeling = self._labeling or self._connect()
            for event in self._labeling.stream("", trial.cursor, IDLE_SECONDS):
                loop.call_soon_threadsafe(self._take, trial, event)
                if self._registry.trial is not trial:
                    break

        try:
            await asyncio.to_thread(follow)
        except IterpoError as error:
            logger.debug("no feedback for canary %d: %s", trial.version, error)

    def _take(self, trial: Trial, event: FeedbackEvent) -> None:
        trial.cursor = max(trial.cursor, event.cursor)
        self._votes.note(event)
        serving = self._registry.serving.version
        if (duel := self._votes.duel(event)) is not None and set(duel) == {trial.version, serving}:
            winner, _ = duel
            trial.tally.duels_won += winner == trial.version
            trial.tally.duels_lost += winner == serving
        if (thumb := self._votes.thumb(event)) is not None and self._is_first(trial, thumb):
            arm = trial.arm(thumb.version, serving)
            if arm is not None:
                arm.good += thumb.up
                arm.bad += not thumb.up

    def _is_first(self, trial: Trial, thumb: Thumb) -> bool:
        if self._heard[0] is not trial:
            self._heard = (trial, set())
        key = (thumb.user, thumb.version)
        if key in self._heard[1]:
            return False
        self._heard[1].add(key)
        return True


@dataclass(frozen=True, slots=True)
class Thumb:
    user: str
    version: int
    up: bool


class Votes:
    """What an event says of which version."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()
        """completion_id -> version, of the latest answers."""

    def note(self, event: FeedbackEvent) -> None:
        """Remember whose the answers of a group are: those that the engine gave, with their digest."""
        for completion in event.group.completions if event.group else ():
            if completion.policy_digest and not completion.author:
                self._versions[completion.completion_id] = completion.policy_version
        while len(self._versions) > REMEMBERED_ANSWERS:
            self._versions.popitem(last=False)

    def thumb(self, event: FeedbackEvent) -> Thumb | None:
        reward = event.reward
        if reward is None or not reward.labeler.startswith(USER) or reward.completion_id not in self._versions:
            return None
        return Thumb(reward.labeler, self._versions[reward.completion_id], reward.value > LIKED)

    def duel(self, event: FeedbackEvent) -> tuple[int, int] | None:
        """(version of the better answer, of the other)."""
        preference = event.preference
        if preference is None or preference.p_first_wins == LIKED:
            return None
        first, second = (self._versions.get(name) for name in (preference.first_id, preference.second_id))
        if first is None or second is None:
            return None
        return (first, second) if preference.p_first_wins > LIKED else (second, first)
