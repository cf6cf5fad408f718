"""What leads are told of policies: exact when it is asked for, and never waited for twice by a page."""

from __future__ import annotations

import time
from dataclasses import replace

from iterpo.labeling import leads
from iterpo.labeling.leads import LeadDesk
from iterpo.types import Outcome
from tests.labeling.builders import group
from tests.labeling.test_tasks import WAIT, People


def compare(people: People, number: int) -> None:
    """Version 2 beats version 1."""
    made = group("yes", "no", group_id=f"g{number}")
    answers = tuple(replace(c, policy_version=version) for version, c in enumerate(made.completions, 1))
    people.desk.record("run", "people", [replace(made, completions=answers)], people.fresh_id()).result(WAIT)
    (lease,) = people.lease("ann")
    people.submit(lease, Outcome.SECOND)


def votes(desk: LeadDesk, fresh: bool) -> float:
    return sum(row.comparisons for row in desk.report(fresh=fresh).policies) / 2


def test_a_page_gets_the_last_table_and_a_newer_one_when_that_is_old(people, monkeypatch) -> None:
    desk = LeadDesk(people.database, people.people.crowd)
    compare(people, 1)
    assert votes(desk, fresh=False) == 1.0
    compare(people, 2)
    assert votes(desk, fresh=False) == 1.0
    monkeypatch.setattr(leads, "TABLE_SECONDS", 0.0)
    assert votes(desk, fresh=False) == 1.0
    deadline = time.monotonic() + 10
    while votes(desk, fresh=False) != 2.0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_whoever_asks_for_a_fresh_one_gets_it(people) -> None:
    desk = LeadDesk(people.database, people.people.crowd)
    compare(people, 1)
    assert votes(desk, fresh=False) == 1.0
    compare(people, 2)
    assert votes(desk, fresh=True) == 2.0
