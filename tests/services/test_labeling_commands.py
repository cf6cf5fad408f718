"""`iterpo annotate` with piped keys, and `iterpo labels`, against a labeling server in this process."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from iterpo.cli import annotate, labels
from iterpo.cli.annotate import choose
from iterpo.cli.reward_models import draw_pairs
from iterpo.labeling.desk import LabelingDesk
from iterpo.labeling.feedback import Feedback
from iterpo.labeling.people import PeopleDesk, PeopleSettings
from iterpo.labeling.reward_model import RewardModel
from iterpo.store.database import open_database
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Mixture
from iterpo.types import AnnotatorState, Group, Label, Outcome
from iterpo.v1 import labeling_pb2_grpc
from services.host import Host, ServerSettings
from services.labeling.metrics import LabelingMetrics
from services.labeling.servicer import LabelingServicer
from tests.labeling.builders import completion, group, prompt
from tests.labeling.fakes import RuleLabeler
from tests.labeling.tiny_model import write_tiny_model

WAIT = 20
TRAINING_SECONDS = 120


@dataclass
class Terminal:
    config: Path
    desk: LabelingDesk

    async def __call__(self, command: object, *arguments: str, keys: str = "", seconds: float = WAIT) -> Result:
        """Runs in a thread: the server in this process must be able to answer."""
        given = [*arguments, "--config", str(self.config)]
        return await asyncio.wait_for(
            asyncio.to_thread(CliRunner().invoke, command, given, input=keys, catch_exceptions=False), seconds
        )

    def ask(self, *groups: Group, labeler: str = "people") -> None:
        self.desk.record("run", labeler, groups, f"r-{groups[0].group_id}").result(WAIT)

    def stored(self) -> list[Label]:
        return [e.label for e in self.desk.database.events("", 0, 1000).result(WAIT) if e.label]


class EverySecond(random.Random):
    """Every second pair is shown the other way round. A lease draws three times: whether to measure the annotator,
    whether to take any task, and which answer comes first."""

    draws = 0

    def random(self) -> float:
        self.draws += 1
        return 0.0 if self.draws % 6 == 0 else 0.999


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    database = open_database(tmp_path / "feedback.db")
    people = PeopleDesk(database, settings=PeopleSettings(mixture=Mixture()), draw=EverySecond(0))
    desk = LabelingDesk(database, {"rule": RuleLabeler(lambda t: len(t) / 10)}, people=people)
    desk.start()
    host = Host("labeling", ServerSettings("127.0.0.1:0"), CollectorRegistry())
    servicer = LabelingServicer(desk, LabelingMetrics(CollectorRegistry()))
    labeling_pb2_grpc.add_LabelingServiceServicer_to_server(servicer, host.server)
    config = tmp_path / "iterpo.toml"
    config.write_text(f'[labeling]\naddress = "127.0.0.1:{host.bind()}"\n')
    serving = asyncio.create_task(host.run(["iterpo.v1.LabelingService"], drain=servicer.drain))
    yield Terminal(config, desk)
    host.stop()
    await asyncio.wait_for(serving, WAIT)
    await asyncio.to_thread(desk.close)
    database.close()


def partials(directory: Path) -> list[Path]:
    return list(directory.glob(".*partial"))


@pytest.mark.parametrize(
    ("pressed", "choice"),
    [
        ("a", (Outcome.FIRST, 0)),
        ("B", (Outcome.SECOND, 3)),
        ("2a", (Outcome.FIRST, 2)),
        ("13b", (Outcome.SECOND, 3)),
        ("2t", (Outcome.TIE, 0)),
        ("wyz \nn", (Outcome.BOTH_BAD, 0)),
        ("s", (Outcome.SKIP, 0)),
        ("q", None),
        ("", None),
        ("2", None),
        ("2u", "undo"),
        ("r", "rationale"),
    ],
)
def test_one_key_is_one_judgement(pressed: str, choice: tuple[Outcome, int] | str | None) -> None:
    assert choose(iter(pressed)) == choice


async def test_piped_keys_label_task_after_task_until_they_end(terminal: Terminal) -> None:
    terminal.ask(*(group("left", "right", group_id=f"g{i}") for i in range(4)))

    result = await terminal(annotate.command, "--annotator", "ann", "--json", keys="a2a\nt")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["presented_outcome"], line["strength"], line["presented_swapped"]) for line in lines] == [
        ("first", 0, False),
        ("first", 2, True),
        ("tie", 0, False),
    ]
    assert [label.outcome for label in terminal.stored()] == [Outcome.FIRST, Outcome.SECOND, Outcome.TIE]
    assert {label.annotator for label in terminal.stored()} == {"ann"}
    assert "3 labels stored. 1 task still open, none for you now." in result.stderr


async def test_u_takes_the_last_label_back_and_shows_its_task_again(terminal: Terminal) -> None:
    terminal.ask(group("left", "right", group_id="g0"), group("left", "right", group_id="g1"))
    result = await terminal(annotate.command, "--annotator", "ann", keys="aubt")
    assert "2 labels stored." in result.output
    events = terminal.desk.database.events("", 0, 1000).result(WAIT)
    back = [e.retraction.label_id for e in events if e.retraction]
    kept = {label.group_id: label.outcome for label in terminal.stored() if label.label_id not in back}
    assert len(back) == 1
    assert kept == {"g0": Outcome.SECOND, "g1": Outcome.TIE}


async def test_undo_without_a_label_says_so_and_goes_on(terminal: Terminal) -> None:
    terminal.ask(group("left", "right"))
    result = await terminal(annotate.command, keys="ua")
    assert "There is no label to take back." in result.output
    assert len(terminal.stored()) == 1


async def test_a_reason_goes_with_the_next_label_and_a_task_can_be_given_back(terminal: Terminal) -> None:
    terminal.ask(group("left", "right", group_id="g0"), group("left", "right", group_id="g1"))
    await terminal(annotate.command, "--annotator", "ann", keys="rwarmer\naxbroken\n")
    assert [label.rationale for label in terminal.stored()] == ["warmer"]
    events = terminal.desk.database.events("", 0, 1000).result(WAIT)
    assert [(e.release.annotator, e.release.reason) for e in events if e.release] == [("ann", "broken")]


async def test_the_swapped_pair_is_shown_the_other_way_round(terminal: Terminal) -> None:
    terminal.ask(group("first-text", "second-text", group_id="g0"), group("first-text", "second-text", group_id="g1"))
    result = await terminal(annotate.command, keys="aa")
    places = [result.output.index("first-text"), result.output.index("second-text")]
    assert places == sorted(places)
    assert result.output.rindex("second-text") < result.output.rindex("first-text")
    assert "2 labels stored." in result.output


async def test_model_text_takes_no_effect_on_the_terminal(terminal: Terminal) -> None:
    terminal.ask(group("\x1b[2Jgone [bold red]loud[/bold red]", "[/] broken markup \x07"))
    result = await terminal(annotate.command, keys="a")
    assert "\x1b[2J" not in result.output
    assert "\x07" not in result.output
    assert "\\x1b[2Jgone [bold red]loud[/bold red]" in result.output
    assert "1 label stored." in result.output


async def test_nothing_to_do_is_said(terminal: Terminal) -> None:
    result = await terminal(annotate.command)
    assert result.output == "0 labels stored.\n"


async def test_a_limit_ends_the_sitting(terminal: Terminal) -> None:
    terminal.ask(*(group("a", "b", group_id=f"g{i}") for i in range(3)))
    await terminal(annotate.command, "--limit", "1", keys="aaa")
    assert len(terminal.stored()) == 1


async def test_the_next_sitting_begins_with_the_task_that_was_left_on_the_screen(terminal: Terminal) -> None:
    terminal.ask(*(group("left", "right", group_id=f"g{i}") for i in range(2)))
    await terminal(annotate.command, "--annotator", "ann", keys="q")
    await terminal(annotate.command, "--annotator", "ann", "--limit", "1", keys="a")
    assert [label.group_id for label in terminal.stored()] == ["g0"]
    left = terminal.desk.people.lease(Ask("ann", 5, 60.0)).result(WAIT)[0]
    assert [held.lease.task.group_id for held in left] == ["g1"], "nothing else was left held"


async def test_labels_are_exported_to_a_file_that_is_whole(terminal: Terminal, tmp_path: Path) -> None:
    terminal.ask(group("left", "right"))
    await terminal(annotate.command, keys="a")
    out = tmp_path / "pairs.jsonl"

    result = await terminal(labels.command, "export", "--format", "trl", "--out", str(out), "--json")

    assert json.loads(result.stdout) == {"format": "trl", "rows": 1, "out": str(out)}
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("left", "right")
    assert not partials(tmp_path)


async def test_events_can_go_to_standard_output(terminal: Terminal) -> None:
    terminal.ask(group("left", "right"))
    result = await terminal(labels.command, "export", "--format", "events", "--out", "-", "--run", "run")
    common = {"created_at_unix_seconds", "cursor", "event_id", "run_id"}
    assert [set(json.loads(line)) - common for line in result.stdout.splitlines()] == [{"group"}, {"task"}]


async def test_an_impossible_place_is_refused(terminal: Terminal, tmp_path: Path) -> None:
    from iterpo.errors import InvalidInput

    with pytest.raises(InvalidInput, match="writable place"):
        await terminal(labels.command, "export", "--format", "kto", "--out", str(tmp_path / "no" / "where"))


async def test_pairs_to_train_on_come_from_labels_and_rewards(terminal: Terminal) -> None:
    terminal.ask(group("left", "right"))
    terminal.ask(group("x", "xxx", "xxxxx", group_id="g2"), labeler="rule")
    await terminal(annotate.command, keys="a")
    async with asyncio.timeout(WAIT):
        while sum(e.kind == "reward" for e in terminal.desk.database.events("", 0).result(WAIT)) < 3:
            await asyncio.sleep(0.01)
    events = terminal.desk.database.events("", 0).result(WAIT)

    def pairs(source: str, most: int = 100) -> list[tuple[str, str]]:
        return [(p.chosen.text, p.rejected.text) for p in draw_pairs(Feedback.of(events), source, most, seed=0)]

    assert pairs("labels") == [("left", "right")]
    assert sorted(pairs("rewards")) == [("xxx", "x"), ("xxxxx", "x"), ("xxxxx", "xxx")]
    assert len(pairs("both")) == 4
    assert len(pairs("both", most=2)) == 2


async def test_a_reward_model_is_trained_from_what_people_said(terminal: Terminal, tmp_path: Path) -> None:
    terminal.ask(*(group("you are kind day", "you are rude day", group_id=f"g{i}") for i in range(4)))
    base = await asyncio.to_thread(write_tiny_model, tmp_path / "tiny")
    await terminal(annotate.command, keys="abab")  # the coin swaps every second pair: kind wins every time
    out = tmp_path / "reward"

    arguments = ("--base", str(base), "--out", str(out), "--epochs", "20", "--learning-rate", "0.01", "--json")
    result = await terminal(labels.command, "train-reward-model", *arguments, seconds=TRAINING_SECONDS)

    metrics = json.loads(result.stdout)
    assert (metrics["train_pairs"], metrics["heldout_pairs"], metrics["heldout_accuracy"]) == (3.0, 1.0, 1.0)
    kind, rude = RewardModel("taste", out).score_batch(
        [(prompt(), completion(text)) for text in ("you are kind day", "you are rude day")]
    )
    assert kind > rude


async def test_a_reward_head_is_trained_from_what_people_said(terminal: Terminal, tmp_path: Path) -> None:
    terminal.ask(*(group("you are kind day", "you are rude day", group_id=f"g{i}") for i in range(4)))
    base = await asyncio.to_thread(write_tiny_model, tmp_path / "tiny")
    await terminal(annotate.command, keys="abab")
    out = tmp_path / "reward"

    arguments = ("--base", str(base), "--out", str(out), "--from", "people", "--json")
    result = await terminal(labels.command, "train-reward-head", *arguments, seconds=TRAINING_SECONDS)

    metrics = json.loads(result.stdout)
    assert (metrics["train_pairs"], metrics["heldout_pairs"], metrics["heldout_accuracy"]) == (4.0, 4.0, 1.0)
    kind, rude = RewardModel("taste", out).score_batch(
        [(prompt(), completion(text)) for text in ("you are kind day", "you are rude day")]
    )
    assert kind > rude


async def test_a_file_of_preferences_is_imported_once_however_often(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"Q{i}?", "chosen": "good", "rejected": "bad"}) + "\n" for i in range(3))
    )
    given = ("import", str(path), "--format", "trl", "--run", "old", "--annotator", "vendor", "--json")
    first = json.loads((await terminal(labels.command, *given)).stdout)
    again = json.loads((await terminal(labels.command, *given)).stdout)
    assert (first["stored"], again["stored"], again["rows"]) == (3, 0, 3)
    assert [label.annotator for label in terminal.stored()] == ["vendor"] * 3
    rows = (await terminal(labels.command, "export", "--format", "trl", "--out", "-")).stdout.splitlines()
    assert [json.loads(row)["chosen"][0]["content"] for row in rows] == ["good"] * 3


async def test_a_file_with_a_bad_line_is_named_and_nothing_of_it_is_stored(terminal: Terminal, tmp_path: Path) -> None:
    from iterpo.errors import InvalidInput

    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Q?", "chosen": "good", "rejected": "bad"}\n{"prompt": "Q?", "chosen": "good"}\n')
    with pytest.raises(InvalidInput, match="line 2 has no `rejected`"):
        await terminal(labels.command, "import", str(path), "--format", "trl")
    assert terminal.stored() == []


async def test_gold_tasks_of_a_file_measure_whoever_answers_them(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"Q{i}?", "chosen": "good", "rejected": "bad"}) + "\n" for i in range(8))
    )
    assert json.loads((await terminal(labels.command, "gold", str(path), "--json")).stdout) == {"gold_tasks": 8}
    await terminal(labels.command, "gold", str(path))
    people = terminal.desk.people
    people.settings = PeopleSettings(mixture=Mixture(gold_share=1.0))
    held, _ = people.lease(Ask("ann", 20, 60.0)).result(WAIT)
    assert len(held) == 8, "twice the same file makes them once"
    assert {lease.lease.task.first.text for lease in held} == {"good", "bad"}, "the right one stands on either side"
    for number, each in enumerate(held):
        shown_first = each.lease.task.second if each.swapped else each.lease.task.first
        better = Outcome.FIRST if shown_first.text == "good" else Outcome.SECOND
        people.submit("ann", [(f"l{number}", Submission(each.lease_id, better))]).result(WAIT)
    (ann,) = json.loads((await terminal(labels.command, "annotators", "ann", "--json")).stdout)
    assert ann["gold"] == {"right": 8, "total": 8}


async def test_the_lead_s_report_says_what_there_is(terminal: Terminal) -> None:
    terminal.ask(group("left", "right", group_id="g0"), group("left", "right", group_id="g1"))
    await terminal(annotate.command, "--annotator", "ann", "--limit", "1", keys="a")
    told = (await terminal(labels.command, "report")).output
    assert "Tasks: 1 open, 0 leased, 1 complete, 0 waiting for the reward model, 0 gold." in told
    assert "Labels by source: people 1." in told
    assert "Krippendorff" in told
    assert "ann" in (await terminal(labels.command, "annotators")).output


async def test_parquet_goes_to_a_folder(terminal: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    terminal.ask(group("left", "right"))
    await terminal(annotate.command, keys="a")
    out = tmp_path / "folder"
    result = await terminal(labels.command, "export", "--format", "parquet", "--out", str(out), "--json")
    assert json.loads(result.stdout)["rows"] == 1
    assert (out / "README.md").is_file()


async def test_an_exclusion_stands_and_says_so_when_the_versions_cannot_be_named(terminal: Terminal) -> None:
    from iterpo.errors import Unavailable

    text = terminal.config.read_text()
    terminal.config.write_text(text + '[learner]\naddress = "127.0.0.1:1"\n[inference]\naddress = "127.0.0.1:1"\n')
    with pytest.raises(Unavailable, match="He is excluded"):
        await terminal(labels.command, "exclude", "ann")
    assert terminal.desk.people.crowd.state("ann") is AnnotatorState.EXCLUDED


async def test_somebody_who_never_labelled_has_no_figures(terminal: Terminal) -> None:
    assert "zoe has not labelled yet" in (await terminal(labels.command, "annotators", "zoe")).output
