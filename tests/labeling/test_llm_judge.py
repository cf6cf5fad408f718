"""A language model as one more annotator: both orders, unreadable verdicts abstain, its agreement is tracked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from iterpo.config import LabelerSettings
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.labeling.catalog import labelers_of
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.judge import JudgeModel, judge_model, read_verdict
from iterpo.labeling.labeler import Abstain
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.labeling.queue import QueueSettings
from iterpo.store.database import open_database
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Mixture
from iterpo.types import Abstention, FeedbackEvent, Outcome, TaskKind
from tests.conftest import Place
from tests.labeling.builders import completion, group, prompt

WAIT = 20
GOOD, BAD = completion("kinder", "good"), completion("ruder", "bad")


def judge(answer: Callable[[str], str]) -> JudgeModel:
    return JudgeModel("llm", "a fake", lambda messages: answer(messages[-1].content))


def prefers_good(text: str) -> str:
    good_first = text.index("kinder") < text.index("ruder")
    return "The good one. [[A]]" if good_first else "The good one. [[B]]"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("[[A]]", Outcome.FIRST),
        ("At first [[A]], but on reflection [[B]]", Outcome.SECOND),
        ("[[C]] both", Outcome.TIE),
    ],
)
def test_the_last_verdict_counts(said: str, outcome: Outcome) -> None:
    assert read_verdict(said) is outcome


@pytest.mark.parametrize("said", ["", "A", "[A]", "[[D]]", "I cannot say."])
def test_what_cannot_be_read_is_an_abstention(said: str) -> None:
    with pytest.raises(Abstain, match="UNPARSEABLE"):
        read_verdict(said)


def test_a_judge_that_prefers_a_place_has_said_a_tie() -> None:
    assert judge(lambda _: "[[A]]").compare(prompt(), GOOD, BAD) is Outcome.TIE
    assert judge(prefers_good).compare(prompt(), GOOD, BAD) is Outcome.FIRST
    assert judge(prefers_good).compare(prompt(), BAD, GOOD) is Outcome.SECOND


def test_a_judge_scores_no_single_answer() -> None:
    with pytest.raises(InvalidInput) as refused:
        judge(prefers_good).score(prompt(), GOOD)
    assert refused.value.reason == "JUDGE_COMPARES"


@pytest.mark.parametrize(
    "options", [{}, {"endpoint": "http://x", "inference": "y"}, {"endpoint": "http://x", "tempo": 1}]
)
def test_a_judge_without_one_model_to_ask_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=r"\[labelers.llm\]"):
        labelers_of({"llm": LabelerSettings(kind="judge", options=options)})


@contextmanager
def endpoint(answer: Callable[[dict[str, Any]], tuple[int, str]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that speaks OpenAI's chat completions: (its address, the requests that it got)."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append({"path": self.path, "key": self.headers.get("authorization"), **body})
            status, text = answer(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": text}}]}).encode())

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)


def test_an_openai_compatible_endpoint_is_asked_greedily_in_both_orders_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    with endpoint(lambda body: (200, prefers_good(body["messages"][0]["content"]))) as (address, asked):
        made = judge_model("llm", {"endpoint": address, "model": "m", "api_key_file": str(tmp_path / "key")})
        assert made.compare(prompt(), GOOD, BAD) is Outcome.FIRST
    assert [(a["path"], a["key"], a["model"], a["temperature"]) for a in asked] == [
        ("/v1/chat/completions", "Bearer secret", "m", 0)
    ] * 2
    first, second = (a["messages"][0]["content"] for a in asked)
    assert first.index("kinder") < first.index("ruder")
    assert second.index("ruder") < second.index("kinder")


class Desk:
    """A desk with a judge `llm`; closed at the end of the test."""

    def __init__(self, path: Path | str, answer: Callable[[str], str], **people: Any) -> None:
        self.database = open_database(path)
        self.abstained: list[Any] = []
        self.people = PeopleDesk(self.database, settings=PeopleSettings(**{"mixture": Mixture(), **people}))
        settings, heard = QueueSettings(2, 5.0), self.abstained.append
        judges = {"llm": judge(answer)}
        self.desk = LabelingDesk(self.database, judges, settings, on_verdict=heard, people=self.people)
        self.desk.start()

    def events(self) -> list[FeedbackEvent]:
        return self.database.events("", 0, 1000).result(WAIT)

    def wait(self, labels: int) -> list[FeedbackEvent]:
        deadline = time.monotonic() + WAIT
        while sum(e.label is not None for e in self.events()) < labels and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.events()

    def close(self) -> None:
        self.desk.close()
        self.database.close()


def test_groups_recorded_for_a_judge_become_preferences_by_its_labels(place: Place) -> None:
    desk = Desk(place("feedback.db"), prefers_good)
    desk.desk.record("run", "llm", [group("kinder", "ruder"), group("ruder", "kinder", group_id="g2")], "r").result(
        WAIT
    )
    events = desk.wait(2)
    people = desk.people.lease(Ask("ann", 5, 60.0)).result(WAIT)[0]
    desk.close()
    labels = {e.label.group_id: e.label for e in events if e.label}
    preferences = {e.preference.group_id: e.preference.p_first_wins for e in events if e.preference}
    assert {name: label.outcome for name, label in labels.items()} == {"g1": Outcome.FIRST, "g2": Outcome.SECOND}
    assert {label.annotator for label in labels.values()} == {"judge/llm"}
    assert preferences["g1"] > 0.5 > preferences["g2"]
    assert people == [], "a judge's tasks are its own"


def test_the_tasks_of_a_judge_that_is_gone_are_skipped_so_that_no_run_waits_for_it(place: Place) -> None:
    def closing(_text: str) -> str:
        raise ConnectionError("away")

    desk = Desk(place("feedback.db"), closing)
    desk.desk.close()
    desk.desk.record("run", "llm", [group("kinder", "ruder"), group("a", "b", group_id="g2")], "r").result(WAIT)
    desk.database.close()
    database = open_database(place("feedback.db"))
    without = LabelingDesk(database, {}, people=PeopleDesk(database))
    without.start()
    events = database.events("", 0, 1000).result(WAIT)
    without.close()
    database.close()
    assert [(e.label.annotator, e.label.outcome) for e in events if e.label] == [("judge/llm", Outcome.SKIP)] * 2
    assert [e.label.rationale.split(":")[0] for e in events if e.label] == ["LABELER_GONE"] * 2
    assert [e.preference.weight for e in events if e.preference] == [0.0, 0.0], (
        "the groups are complete, and say nothing"
    )


def test_what_is_asked_of_a_judge_that_a_lead_took_out_is_skipped(place: Place) -> None:
    desk = Desk(place("feedback.db"), prefers_good)
    desk.people.crowd.exclude("judge/llm", "biased")
    desk.desk.record("run", "llm", [group("kinder", "ruder")], "r").result(WAIT)
    events = desk.wait(1)
    desk.close()
    (label,) = [e.label for e in events if e.label]
    assert (label.outcome, label.rationale.split(":")[0]) == (Outcome.SKIP, "ANNOTATOR_EXCLUDED")
    assert [e.preference.weight for e in events if e.preference] == [0.0]


@pytest.mark.parametrize("answer", [lambda _text: "no verdict", lambda _text: 1 / 0])
def test_a_judge_that_fails_abstains_and_says_nothing_about_the_order(place: Place, answer: Any) -> None:
    desk = Desk(place("feedback.db"), answer)
    desk.desk.record("run", "llm", [group("kinder", "ruder")], "r").result(WAIT)
    events = desk.wait(1)
    desk.close()
    assert [e.label.outcome for e in events if e.label] == [Outcome.SKIP]
    assert [e.preference.weight for e in events if e.preference] == [0.0]
    assert [type(each) for each in desk.abstained] == [Abstention]
    assert desk.abstained[0].reason.split(":")[0] in ("UNPARSEABLE", "EXCEPTION")


def test_a_second_opinion_decides_nothing_and_its_agreement_with_people_is_tracked(place: Place) -> None:
    desk = Desk(place("feedback.db"), prefers_good, second_opinion="judge/llm", second_opinion_share=1.0)
    names = [f"g{i}" for i in range(6)]
    desk.desk.record("run", "people", [group("kinder", "ruder", group_id=name) for name in names], "r").result(WAIT)
    for number, held in enumerate(desk.people.lease(Ask("ann", 10, 60.0)).result(WAIT)[0]):
        picks_good = number < 5
        outcome = Outcome.FIRST if picks_good != held.swapped else Outcome.SECOND
        desk.people.submit("ann", [(f"l{number}", Submission(held.lease_id, outcome))]).result(WAIT)
    events = desk.wait(12)
    report = desk.desk.leads.report()
    desk.close()
    kinds = [e.label.kind for e in events if e.label]
    assert (kinds.count(TaskKind.COMPARISON), kinds.count(TaskKind.AUDIT)) == (6, 6)
    assert len([e for e in events if e.preference]) == 6, "one for each pair, from people alone"
    agreement = report.machines["judge/llm"]
    assert agreement.items == 6
    assert report.labels_by_source == {"people": 6, "judge/llm": 6}
