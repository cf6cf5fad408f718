"""A run's report: one file, inert, complete, and what it says repeats the run."""

from __future__ import annotations

import math
import re
import tomllib
from html.parser import HTMLParser

import pytest

from iterpo.cli.run_report import Report, curves, html, recipe
from iterpo.run_config import RunConfig
from iterpo.types import PolicyState, PolicyVersion
from iterpo.v1 import learner_pb2 as pb
from iterpo.v1 import types_pb2
from tests.cli.test_run_screen import row

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e"
CONFIG = {"algorithm": "online_dpo", "seed": 3, "beside": True, "gate": {"max_kl": 5.0}, "labeler": 'a "quoted" one'}


def report(**changes) -> Report:
    refused = row(2)
    refused.decision.CopyFrom(types_pb2.GateDecision(promote=False, reasons=["KL 3 is over 2."]))
    answer = {"prompt": [{"role": "user", "content": f"How? {HOSTILE}"}], "text": HOSTILE, "reward": 0.25}
    heldout = {
        "before": {"version": 0, "answers": [answer]},
        "after": {"version": 2, "answers": [answer | {"text": "Better.", "reward": None}]},
    }
    description = {
        "config": CONFIG,
        "heldout": heldout,
        "versions": {"torch": "2.13.0"},
        "hardware": {"processor": "a CPU", "cores": 2},
    }
    given = {
        "run": pb.Run(run_id=HOSTILE, algorithm="online_dpo", iteration=2, iterations=2, heldout_reward=math.nan),
        "state": "finished",
        "rows": [row(1), refused],
        "description": description,
        "versions": [PolicyVersion(2, "d" * 64, PolicyState.SERVING, 0, "r", "online_dpo")],
        "labels": {"people": 12},
    }
    return Report(**(given | changes))


class Tags(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_it_says_what_happened() -> None:
    text = html(report())
    for words in ("online_dpo", "KL 3 is over 2.", "reward 0.25", "Better.", "people", "a CPU", "2.13.0", "d" * 12):
        assert words in text
    assert "<svg" in text


def test_it_needs_nothing_else_and_runs_nothing() -> None:
    tags = Tags(html(report())).found
    assert not {tag for tag, _ in tags} & {"script", "img", "iframe", "link", "object", "embed"}
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]
    links = [v for _, a in tags for name, v in a.items() if name.endswith(("src", "href")) and v]
    assert [link for link in links if not link.startswith("#")] == []  # marks within the curves alone
    assert "&lt;script&gt;" in html(report())
    assert "\u202e" not in html(report())


def test_its_recipe_is_the_runs_configuration() -> None:
    section = recipe("r", CONFIG).partition("# iterpo up")[0]
    assert tomllib.loads(section)["run"] == CONFIG
    again = RunConfig.model_validate(tomllib.loads(section)["run"])
    assert again == RunConfig.model_validate(CONFIG)


@pytest.mark.parametrize("name", ["grpo", "offline_dpo"])
def test_every_configuration_that_differs_can_be_written_down(name: str) -> None:
    config = RunConfig(algorithm=name, normalizer={"name": "per_token"}, kl={"beta": 0.1}, lora={"r": 8, "alpha": 16})
    changed = config.model_dump(mode="json", exclude_defaults=True)
    assert RunConfig.model_validate(tomllib.loads(recipe("r", changed).partition("# iterpo up")[0])["run"]) == config


def test_the_same_rows_draw_the_same_curves() -> None:
    rows = [row(n) for n in range(1, 5)]
    assert curves(rows) == curves(rows)
    assert re.sub(r"\s", "", curves([])) == "<p>Noiterationwascommitted.</p>"


def test_a_run_without_answers_or_labels_is_a_report_too() -> None:
    description = dict(report().description) | {"heldout": {}}
    text = html(report(description=description, labels={}, rows=[], versions=[]))
    assert "None were kept." in text
    assert "None of people." in text
