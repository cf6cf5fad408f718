"""Puts the labeling service's desks together from iterpo.toml."""

from __future__ import annotations

from collections.abc import Callable

from iterpo.config import LabelingSettings, Settings
from iterpo.errors import InvalidConfig
from iterpo.labeling.budget import Budget
from iterpo.labeling.catalog import JUDGE, labelers_of, machine_name
from iterpo.labeling.crowd import Crowd, CrowdSettings
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.guidelines import Guidelines
from iterpo.labeling.pairs import TaskPlan
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.labeling.queue import QueueSettings
from iterpo.store.database import FeedbackDatabase
from iterpo.store.leases import Mixture
from iterpo.store.work import Verdict


def labeling_desk(
    settings: Settings, database: FeedbackDatabase, on_verdict: Callable[[Verdict], None]
) -> LabelingDesk:
    """Raises InvalidConfig; loads no model yet."""
    labeling = settings.labeling
    labelers = labelers_of(settings.labelers)
    opinion = labeling.second_opinion
    if opinion and (opinion not in labelers or labelers[opinion].kind != JUDGE):
        raise InvalidConfig(
            f"labeling.second_opinion names {opinion!r}, which is no judge.",
            f'Add [labelers.{opinion}] with kind = "judge".',
        )
    people = PeopleDesk(
        database,
        Crowd(CrowdSettings(min_seconds=labeling.min_seconds, max_share=labeling.max_influence)),
        Guidelines.of(settings.guidelines),
        PeopleSettings(
            labeling.lease_seconds,
            labeling.undo_seconds,
            labeling.task_selection,
            Mixture(labeling.random_share, labeling.gold_share, labeling.repeat_share),
            second_opinion=machine_name(JUDGE, opinion) if opinion else "",
            second_opinion_share=labeling.second_opinion_share,
        ),
    )
    budget = Budget(people, labeling.budget) if labeling.budget.reward_model else None
    return LabelingDesk(
        database,
        labelers,
        _queue(labeling),
        on_verdict=on_verdict,
        people=people,
        plan=_plan(labeling),
        budget=budget,
    )


def _plan(labeling: LabelingSettings) -> TaskPlan:
    return TaskPlan(labeling.required_labels, labeling.pairs, labeling.guideline, labeling.language)


def _queue(labeling: LabelingSettings) -> QueueSettings:
    return QueueSettings(labeling.max_attempts, labeling.labeler_timeout_seconds, labeling.workers)
