"""What an application's own users say of served answers: kept, thumbs, edited; each a group of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iterpo.errors import Conflict, InvalidInput, NotFound, WrongState
from iterpo.labeling.application import ApplicationDesk, Edited, Kept, Thumb, Verdict
from iterpo.types import AnnotatorState, FeedbackEvent, Group, Outcome
from tests.conftest import Place
from tests.labeling.builders import group
from tests.labeling.test_tasks import WAIT, People

SERVED = group("short", "long", group_id="served")


class Application:
    def __init__(self, path: Path | str) -> None:
        self.people = People(path)
        self.desk = ApplicationDesk(self.people.people)

    def say(
        self, verdict: Verdict, served: Group | None = SERVED, request_id: str = "r", user: str = "u1"
    ) -> list[str]:
        return self.desk.submit("app", user, verdict, served, request_id).result(WAIT).ids

    def events(self) -> list[FeedbackEvent]:
        return self.people.database.events("app", 0, 100).result(WAIT)


@pytest.fixture
def application(place: Place) -> Iterator[Application]:
    made = Application(place("feedback.db"))
    yield made
    made.people.desk.close()
    made.people.database.close()


def test_the_answer_that_a_user_kept_is_preferred(application: Application) -> None:
    application.say(Kept("served-1", "served-0", strength=2))
    events = application.events()
    assert [e.kind for e in events] == ["group", "task", "label", "preference"]
    first, second = (c.text for c in events[0].group.completions)
    label, preference = events[2].label, events[3].preference
    kept = first if label.outcome is Outcome.FIRST else second
    assert (kept, label.annotator, label.strength) == ("long", "u1", 2)
    assert (preference.p_first_wins > 0.7) == (first == "long")


def test_what_was_served_is_recorded_under_fresh_ids_so_that_it_disturbs_no_group(application: Application) -> None:
    application.say(Kept("served-1", "served-0"), request_id="a")
    application.say(Kept("served-1", "served-0"), request_id="b", user="u2")
    groups = [e.group for e in application.events() if e.group]
    assert len({g.group_id for g in groups}) == 2
    assert len({c.completion_id for g in groups for c in g.completions}) == 4


def test_a_thumb_is_a_reward_in_the_user_s_name(application: Application) -> None:
    application.say(Thumb("served-0", up=False))
    recorded, rewarded = application.events()
    assert [c.text for c in recorded.group.completions] == ["short"]
    assert (rewarded.reward.value, rewarded.reward.user) == (0.0, "u1")


def test_the_thumb_of_somebody_whose_votes_count_nothing_is_kept_and_is_no_reward(application: Application) -> None:
    application.people.people.crowd.set_state("u1", AnnotatorState.QUARANTINED, "guesses")
    application.say(Thumb("served-0", up=False))
    _, said = application.events()
    assert (said.reward, said.abstention.labeler) == (None, "user:u1")
    assert said.abstention.reason == "ANNOTATOR_QUARANTINED: thumb down"


def test_an_edited_answer_beats_the_original_and_has_no_tokens_of_a_policy(application: Application) -> None:
    application.say(Edited("served-0", "short and kind"))
    events = application.events()
    original, edited = sorted(events[0].group.completions, key=lambda c: len(c.text))
    assert (edited.text, edited.author, edited.token_ids, edited.logprobs) == ("short and kind", "u1", (), ())
    assert (original.text, original.token_ids) == ("short", ()), "a client's tokens are nobody's proof"
    better = events[0].group.completions[0 if events[2].label.outcome is Outcome.FIRST else 1]
    assert better is edited


def test_recorded_answers_need_not_be_sent_again(application: Application) -> None:
    application.people.ask("short", "long", group_id="g1")
    application.say(Kept("g1-0", "g1-1"), served=None)
    assert sorted(c.text for c in application.events()[0].group.completions) == ["long", "short"]
    with pytest.raises(NotFound):
        application.say(Thumb("nobody", True), served=None, request_id="x")


def test_feedback_sent_twice_counts_once_and_an_id_is_for_one_content(application: Application) -> None:
    first = application.say(Thumb("served-0", True), request_id="same")
    assert application.say(Thumb("served-0", True), request_id="same") == first
    assert len(application.events()) == 2
    with pytest.raises(Conflict):
        application.say(Thumb("served-0", False), request_id="same")


@pytest.mark.parametrize("verdict", [Kept("served-0", "served-0"), Kept("served-0", "other"), Thumb("other", True)])
def test_answers_that_were_not_served_are_refused(application: Application, verdict: Verdict) -> None:
    with pytest.raises(InvalidInput) as refused:
        application.say(verdict)
    assert refused.value.reason == "NOT_SERVED"
    assert application.events() == []


def test_a_user_who_was_taken_out_gives_no_feedback(application: Application) -> None:
    application.people.people.crowd.set_state("u1", AnnotatorState.EXCLUDED, "spam")
    with pytest.raises(WrongState) as refused:
        application.say(Thumb("served-0", True))
    assert refused.value.reason == "ANNOTATOR_EXCLUDED"


def test_a_busy_user_does_not_look_like_one_who_always_takes_the_left(application: Application) -> None:
    for number in range(60):
        application.say(Kept("served-1", "served-0"), request_id=f"r{number}")
    application.people.desk.leads.judge()
    assert application.people.people.crowd.state("u1") is AnnotatorState.OK
