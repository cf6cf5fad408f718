"""The three real services under one supervisor, and any one of them killed in mid-run (invariants 3 and 9)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from iterpo.cli import labels, run
from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import PolicyClient
from iterpo.clients.labeling import LabelingClient
from iterpo.demo.traffic import Traffic
from iterpo.policies import manifest
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.types import FeedbackEvent, GateDecision, Outcome
from iterpo.v1 import learner_pb2
from tests.e2e.services import (
    OVER,
    RETURN_SECONDS,
    RUN_SECONDS,
    Services,
    assert_every_event_was_used_once,
    finished,
    running_services,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    with running_services(tmp_path_factory.mktemp("e2e") / "home") as running:
        yield running


@pytest.mark.parametrize(("run_id", "ahead"), [("first", 0), ("pipeline", 2)])
def test_a_killed_learner_goes_on_from_its_checkpoint_and_serving_never_notices(services, run_id, ahead):
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))]
    with Traffic(services.inference, prompts, max_tokens=4) as traffic:
        services.start(run_id, iterations=4, ahead=ahead)
        services.wait(run_id, lambda run: run.iteration >= 1, RUN_SECONDS)
        services.kill("learner")
        run = services.wait(run_id, lambda run: run.state == learner_pb2.RUN_STATE_INTERRUPTED, RETURN_SECONDS)
        committed = run.iteration
        services.learner.resume(run_id)
        services.wait(run_id, finished, RUN_SECONDS)
    rows = services.learner.get(run_id).rows
    assert committed >= 1
    assert [row.iteration for row in rows] == [1, 2, 3, 4]
    assert all(row.proved and row.promoted for row in rows)
    assert_every_event_was_used_once(services, run_id)
    assert traffic.requests > 5
    assert (traffic.failed, traffic.errors) == (0, [])


def test_a_run_goes_on_when_killed_labeling_is_back(services):
    services.start("second", iterations=4, ahead=2)
    services.wait("second", lambda run: run.iteration >= 1, RUN_SECONDS)
    services.kill("labeling")
    services.wait("second", finished, RUN_SECONDS)
    assert [row.iteration for row in services.learner.get("second").rows] == [1, 2, 3, 4]
    assert_every_event_was_used_once(services, "second")


def test_a_run_waits_for_killed_inference_and_goes_on_when_it_is_back(services):
    services.start("third", iterations=4)
    services.wait("third", lambda run: run.iteration >= 1, RUN_SECONDS)
    before = services.serving()
    services.kill("inference")
    waiting = services.wait("third", lambda run: run.state == learner_pb2.RUN_STATE_WAITING, RETURN_SECONDS)
    assert "waiting for" in waiting.status
    services.wait("third", finished, RUN_SECONDS)
    rows = services.learner.get("third").rows
    assert [row.iteration for row in rows] == [1, 2, 3, 4]
    assert_every_event_was_used_once(services, "third")
    assert services.serving() == rows[-1].policy_version > before


def test_a_synchronous_run_repeats_itself_bit_by_bit(services):
    """From the same version, with the same seed: the same answers, the same update, the same bytes. Another seed is
    the negative control."""
    learned = {}
    for name, seed in (("once", 1), ("repeated", 1), ("otherwise", 2)):
        base = GateDecision(True, ("from the base",), {"by_hand": 1.0})
        PolicyClient(connect_service(services.settings, "inference")).promote(0, base, f"base for {name}")
        services.start(name, iterations=2, seed=seed, micro_batch_tokens=512)
        services.wait(name, finished, RUN_SECONDS)
        rows = services.learner.get(name).rows
        assert all(row.promoted for row in rows)
        policies = [manifest.directory(services.settings.data_dir / "policies", row.policy_version) for row in rows]
        weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in policies]
        learned[name] = ([(row.train_reward, row.kl_nats, row.metrics["grad_norm"]) for row in rows], weights)
    assert learned["once"] == learned["repeated"]
    assert learned["once"][1][0] != learned["otherwise"][1][0]


def test_a_policy_learns_from_people_who_compare_its_answers(services):
    """A person who likes the letter e, through the same calls as `iterpo annotate`; answers are shown in the order that
    the server drew, and the label is of what was shown."""
    people = LabelingClient(connect_service(services.settings, "labeling", "annotator"))
    settings = {"algorithm": "online_dpo", "labeler": "people", "response_sampling": {"name": "random_pair", "size": 2}}
    services.start("people", iterations=2, **settings, kl={}, prompts_per_iteration=3)
    labels, deadline = 0, time.monotonic() + RUN_SECONDS
    while services.learner.get("people").run.state not in OVER and time.monotonic() < deadline:
        leases, _ = people.lease("ann", 4, "people")
        for lease in leases:
            shown = (lease.task.second, lease.task.first) if lease.swapped else (lease.task.first, lease.task.second)
            better = Outcome.FIRST if shown[0].text.count("e") >= shown[1].text.count("e") else Outcome.SECOND
            labels += people.submit(lease, better, strength=2, duration_seconds=1.0).accepted
        time.sleep(0.2)
    services.wait("people", finished, 1.0)
    rows = services.learner.get("people").rows
    assert [(row.iteration, row.proved) for row in rows] == [(1, True), (2, True)]
    assert labels == 6
    assert_every_event_was_used_once(
        services, "people", least=2 * 3 * 4
    )  # a group, a task, a label and a preference each


def label_as(services, name: str, likes: int, stop: threading.Event) -> None:
    """A person at the stream who prefers the answer with more e's, or with fewer (`likes` -1)."""
    with (
        connect_service(services.settings, "labeling", "annotator") as channel,
        Annotation(channel, name) as annotation,
    ):
        while not stop.is_set():
            if (lease := annotation.next(timeout=0.3)) is not None:
                first, second = (likes * answer.text.count("e") for answer in (lease.task.first, lease.task.second))
                annotation.label(lease, Outcome.FIRST if (first >= second) != lease.swapped else Outcome.SECOND)


def test_somebody_is_taken_out_and_the_policy_is_trained_again_without_him(services):
    """Two people label over streams; mallory is excluded, the versions that he touched are named, and a replay from
    the version before them becomes the serving one."""
    stop = threading.Event()
    people = [threading.Thread(target=label_as, args=(services, *who, stop)) for who in (("eve", 1), ("mallory", -1))]
    before = services.serving()
    for person in people:
        person.start()
    settings = {"algorithm": "online_dpo", "labeler": "people", "response_sampling": {"name": "random_pair", "size": 4}}
    services.start("judged", iterations=2, **settings, kl={}, prompts_per_iteration=3)
    services.wait("judged", finished, RUN_SECONDS)
    stop.set()
    for person in people:
        person.join(60)

    (excluded,) = invoke(labels.command, "exclude", "mallory", "--reason", "dislikes e", services=services)
    assert excluded["events"] > 0
    assert excluded["policy_versions"]
    assert excluded["revised_preferences"] == excluded["events"]

    *_, row = invoke(run.command, "replay", "judged", "--without", "mallory", "--as", "again", services=services)
    assert row["promoted"]
    policies = {p.version: p for p in PolicyClient(connect_service(services.settings, "inference")).versions()}
    serving = policies[services.serving()]
    first = min(each["iteration"] for each in excluded["iterations"])
    expected_parent = before if first == 1 else services.learner.get("judged").rows[first - 2].policy_version
    assert (serving.run_id, serving.parent) == ("again", expected_parent)
    touched = [e for e in stored(services, "judged") if e.label and e.label.annotator == "mallory"]
    assert len(touched) == excluded["events"]

    (found,) = invoke(labels.command, "exclude", "eve", "--reason", "likes e", services=services)
    assert serving.version in found["policy_versions"], "what the replay learned from eve is hers, too"
    (again,) = invoke(labels.command, "exclude", "mallory", services=services)
    assert serving.version not in again["policy_versions"], "it was made without him"


def test_what_an_application_s_user_says_over_http_becomes_a_preference_of_proved_answers(services):
    """Two answers of one request, and one of another request to the same prompt; the labels name the policy version,
    and the tokens are those that the engine drew."""
    import httpx

    def post(path: str, **body: object) -> dict[str, Any]:
        response = httpx.post(f"http://{services.settings.inference.http_address}/v1/{path}", json=body, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()

    ask = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12}
    one, other = post("chat/completions", n=2, **ask), post("chat/completions", **ask)
    names = [c["completion_id"] for c in one["choices"]]
    post("feedback", completion_id=names[0], over=names[1], user="u1", strength=3)
    post("feedback", completion_id=other["choices"][0]["completion_id"], over=names[1], user="u2")
    post("feedback", completion_id=names[0], thumb="up", user="u1")
    events = stored(services, "feedback")
    assert [e.kind for e in events] == ["group", "task", "label", "preference"] * 2 + ["group", "reward"]
    assert [e.label.annotator for e in events if e.label] == ["u1", "u2"]
    answers = [c for e in events if e.group for c in e.group.completions]
    assert {c.policy_version for c in answers} == {one["policy_version"], other["policy_version"]}
    assert all(c.token_ids and len(c.logprobs) == len(c.token_ids) for c in answers)
    assert {c.text for c in answers} <= {c["message"]["content"] for c in one["choices"] + other["choices"]}


def stored(services, run_id: str) -> list[FeedbackEvent]:
    return list(LabelingClient(connect_service(services.settings, "labeling")).stream(run_id, 0, 1.0))


def invoke(command, *arguments: str, services) -> list[Any]:
    """The lines of a command's JSON."""
    config = services.settings.data_dir / "iterpo.toml"
    result = CliRunner().invoke(command, [*arguments, "--config", str(config), "--json"], catch_exceptions=False)
    return [json.loads(line) for line in result.stdout.splitlines()]
