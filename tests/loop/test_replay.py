"""Training again without somebody: the same groups, the newest preferences, one candidate at the end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from iterpo.algorithms import resolve
from iterpo.config import Settings
from iterpo.iterate import Loop
from iterpo.patience import Control
from iterpo.pipeline import make_loop
from iterpo.ports import World
from iterpo.replay import Replay, groups_again
from iterpo.run_config import ReplayOf
from iterpo.types import Example, Outcome, Preference, Progress, Reward
from services.learner.assembly import Assembly, commit
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager
from tests.loop.fakes import RUN, FakeLearner, prompt
from tests.loop.run import Run

AGAIN = "again"


@pytest.fixture
def run(make_run) -> Run:
    """Three iterations of one group each, whose second answer a person preferred."""
    made = make_run(
        algorithm="online_dpo", labeler="people", iterations=3, prompts_per_iteration=1, feedback_timeout_seconds=5
    )
    stream = made.feedback.stream

    def labelled(run_id, cursor, idle_seconds):
        known = {e.label.task_id for e in made.feedback.events if e.label is not None}
        for task in [e.task for e in made.feedback.events if e.task is not None]:
            if task.task_id not in known:
                made.feedback.answer(task, Outcome.SECOND)
        yield from stream(run_id, cursor, idle_seconds)

    made.feedback.stream = labelled
    made.finish()
    return made


def turn_around(run: Run) -> None:
    """What taking the annotator out does: every preference that he took part in is made anew."""
    for event in list(run.feedback.events):
        if event.preference is not None:
            run.feedback.append(preference=replace(event.preference, p_first_wins=1.0))


def replayed(run: Run, first: int) -> Loop:
    of = ReplayOf(run_id=RUN, first_iteration=first, version=first - 1, without=("ann",))
    config = run.config.model_copy(update={"replay_of": of, "iterations": 3 - first + 1})
    run.ledger.create(AGAIN, config.model_dump(), [Example(prompt(0))], [])
    groups = groups_again(run.feedback.events, run.ledger.iterations_of(RUN), first, 3, of.without)
    world = World(
        run.generator,
        run.feedback,
        run.labeler,
        run.publisher,
        FakeLearner(),
        run.folder / "policies",
        run.folder / "replay",
        partial(commit, run.ledger, run.folder / "replay"),
        partial(run.ledger.set_progress, AGAIN),
    )
    start = Progress(version=first - 1)
    return make_loop(
        AGAIN, config, resolve(config), [], [prompt(100)], world, start, run.rebuilt_buffer(), Control(lambda *_: None),
        Replay(groups),
    )  # fmt: skip


def test_the_ledger_says_which_iterations_consumed_a_person_s_labels(run: Run) -> None:
    labels = [e.event_id for e in run.feedback.events if e.label]
    assert run.ledger.touched(labels) == [(RUN, 1), (RUN, 2), (RUN, 3)]
    assert run.ledger.touched([labels[1], "unknown"]) == [(RUN, 2)]


def test_a_replay_learns_the_newest_preferences_and_delivers_one_candidate(run: Run) -> None:
    assert run.learner.weights == ["g0/1", "g0/0", "g1/1", "g1/0", "g2/1", "g2/0"], "the chosen one first"
    turn_around(run)
    before = len(run.publisher.history)
    loop = replayed(run, first=2)
    rows = list(loop.iterations())

    assert loop.world.learner.weights == ["g1/0", "g1/1", "g2/0", "g2/1"], "from the second iteration on, turned around"
    assert [row.promoted for row in rows] == [False, True]
    assert run.publisher.history[before:] == ["load 4", "promote 4"], "nothing in between was anybody's policy"
    assert run.ledger.consumed(AGAIN) == [], "the events were consumed by the run that is repeated"


async def test_a_replay_is_found_among_what_was_trained_on_a_persons_labels_unless_it_was_made_without_him(
    run: Run,
) -> None:
    """The replay from iteration 2 on, without ann, delivered version 4 at its second iteration; bob's labels are in it
    where the run learned them from iteration 2 on."""
    labels = [e.event_id for e in run.feedback.events if e.label]
    loop = replayed(run, first=2)
    runs = RunManager(run.ledger, Assembly(Settings()), LearnerMetrics(CollectorRegistry()))
    next(iterations := loop.iterations())
    assert runs.touched(labels, "bob") == [(RUN, 1, 1), (RUN, 2, 2), (RUN, 3, 3)], "an unfinished replay is no policy"
    list(iterations)
    assert runs.touched(labels, "bob") == [(AGAIN, 2, 4), (RUN, 1, 1), (RUN, 2, 2), (RUN, 3, 3)]
    assert runs.touched(labels[:1], "bob") == [(RUN, 1, 1)], "what the replay did not go through"
    assert runs.touched(labels, "ann") == [(RUN, 1, 1), (RUN, 2, 2), (RUN, 3, 3)], "it was made without her"
    assert runs.view(AGAIN).record.replay_of == ReplayOf(run_id=RUN, first_iteration=2, version=1, without=("ann",))


def test_without_new_preferences_a_replay_repeats_what_was_learned(run: Run) -> None:
    """The negative control: it is the preferences that make the difference, not the replay."""
    loop = replayed(run, first=1)
    list(loop.iterations())
    assert loop.world.learner.weights == run.learner.weights


def test_a_pair_that_nobody_else_labelled_is_left_out(run: Run) -> None:
    for event in list(run.feedback.events):
        if event.preference is not None and event.preference.group_id == "g1":
            run.feedback.append(preference=replace(event.preference, p_first_wins=0.5, weight=0.0))
    loop = replayed(run, first=1)
    rows = list(loop.iterations())
    assert loop.world.learner.weights == ["g0/1", "g0/0", "g2/1", "g2/0"]
    assert [row.iteration for row in rows] == [1, 2, 3]


def test_thumbs_of_the_person_are_left_out() -> None:
    from tests.loop.test_buffer import event, group

    events = [
        event(1, group=group()),
        event(2, reward=Reward("g0/0", 1.0, "user:ann")),
        event(3, reward=Reward("g0/1", 1.0, "user:bob")),
        event(4, reward=Reward("g0/0", 0.0, "rule")),
    ]
    ((found,),) = groups_again(events, {"e1": 1}, 1, 1, ("ann",))
    assert found.rewards == {"g0/0": 0.0, "g0/1": 1.0}
    assert groups_again(events, {"e1": 1}, 2, 2, ()) == [[]], "another iteration's group"


def test_what_is_not_complete_any_more_is_left_out() -> None:
    """A label taken back after it was trained on leaves its pair without a preference."""
    from iterpo.types import Retraction, Task
    from tests.loop.test_buffer import event, group

    made = group()
    task = Task("t1", RUN, "g0", made.prompt, *made.completions)
    stands = Preference("g0", "g0/0", "g0/1", 0.9, task_id="t1")
    events = [event(1, group=made), event(2, task=task), event(3, preference=stands)]
    assert len(groups_again(events, {"e1": 1}, 1, 1, ())[0]) == 1
    events.append(event(4, retraction=Retraction("l", "t1", "g0", "ann")))
    assert groups_again(events, {"e1": 1}, 1, 1, ()) == [[]]
