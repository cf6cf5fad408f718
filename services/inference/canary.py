"""While a version is the canary: what live traffic says of it is counted, and its sequential test decides.

Failures are counted where requests end (PolicyRegistry._left). Feedback comes from the labeling service, as it does for
the learner: thumbs, and preferences between an answer of the canary and one of the version that serves. Answers whose
version is not known, because an application sent back a text of its own, count for neither.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import deepcopy

from iterpo.clients.labeling import LabelingClient
from iterpo.config import CanarySettings
from iterpo.errors import IterpoError
from iterpo.policies.canary import Tally, Verdict, judge
from iterpo.types import USER, FeedbackEvent, Group
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
        self._labeling, self._elsewhere = labeling, elsewhere
        self._votes = Votes()
        self._saved = Tally()

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
            if tally != self._saved:  # every save is a flush to the disk
                self._saved = deepcopy(tally)
                self._registry.save_trial()
        elif await self._registry.conclude(trial, found):
            logger.warning("canary %d: %s %s", trial.version, found.verdict, "; ".join(found.reasons))
            self._metrics.canary_verdicts.labels(found.verdict).inc()

    def _show(self, tally: Tally) -> None:
        for name, arm in (("canary", tally.canary), ("serving", tally.serving)):
            for what in ("answered", "failed", "good", "bad"):
                self._metrics.canary.labels(name, what).set(getattr(arm, what))

    async def _listen(self, trial: Trial) -> None:
        """Feedback since the cursor; ends when none comes for a while."""
        loop = asyncio.get_running_loop()

        def follow() -> None:
            events = self._labeling().stream("", trial.cursor, IDLE_SECONDS)
            for event in events:
                loop.call_soon_threadsafe(self._take, trial, event)
                if self._registry.trial is not trial:
                    break

        try:
            await asyncio.to_thread(follow)
        except IterpoError as error:
            logger.debug("no feedback for canary %d: %s", trial.version, error)

    def _take(self, trial: Trial, event: FeedbackEvent) -> None:
        trial.cursor = max(trial.cursor, event.cursor)
        for version, good in self._votes.of(event):
            arm = trial.arm(version, self._registry.serving.version)
            if arm is not None:
                arm.good += good
                arm.bad += not good


class Votes:
    """What an event says of which version."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()
        """completion_id -> version, of the latest answers."""

    def of(self, event: FeedbackEvent) -> Iterator[tuple[int, bool]]:
        """(version, whether it was liked). A preference speaks of two answers, if their versions differ."""
        reward, preference = event.reward, event.preference
        if event.group is not None:
            self._note(event.group)
        elif reward is not None and reward.labeler.startswith(USER):
            version = self._versions.get(reward.completion_id)
            if version is not None:
                yield version, reward.value > LIKED
        elif preference is not None and preference.p_first_wins != LIKED:
            first, second = (self._versions.get(name) for name in (preference.first_id, preference.second_id))
            if first is not None and second is not None and first != second:
                won = preference.p_first_wins > LIKED
                yield first, won
                yield second, not won

    def _note(self, group: Group) -> None:
        for completion in group.completions:
            if not completion.author:
                self._versions[completion.completion_id] = completion.policy_version
        while len(self._versions) > REMEMBERED_ANSWERS:
            self._versions.popitem(last=False)
