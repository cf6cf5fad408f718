"""Out and in again: the same rows, pseudonyms instead of names, a Parquet folder that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iterpo.clients.labeling import imported_group
from iterpo.errors import Conflict
from iterpo.labeling.application import ApplicationDesk, Kept, Thumb
from iterpo.labeling.exports import FORMATS, Pseudonyms, line, pair_rows
from iterpo.labeling.imports import read_rows
from iterpo.labeling.parquet import write_folder
from iterpo.types import FeedbackEvent, Outcome
from tests.conftest import Place
from tests.labeling.builders import group
from tests.labeling.test_tasks import WAIT, People

KEY = b"k" * 32


def labelled(path: Path | str) -> list[FeedbackEvent]:
    """Two pairs that ann compared, a thumb of bob's, and a task given back."""
    people = People(path)
    for number, outcome in enumerate((Outcome.FIRST, Outcome.TIE)):
        people.ask("left", "right", group_id=f"g{number}")
        (lease,) = people.lease("ann")
        people.submit(lease, outcome)
    people.ask("x", "y", group_id="g9")
    (lease,) = people.lease("ann")
    people.people.release("ann", lease.lease_id, "broken").result(WAIT)
    ApplicationDesk(people.people).submit("run", "bob", Thumb("s-0", True), group("s", group_id="s"), "t").result(WAIT)
    events = people.database.events("", 0, 100).result(WAIT)
    people.desk.close()
    people.database.close()
    return events


def test_nobody_s_name_is_in_an_export_and_pseudonyms_are_the_same_every_time(place: Place) -> None:
    events = labelled(place("feedback.db"))
    rows = [line(row) for row in FORMATS["events"](Pseudonyms(KEY).hide(events))]
    assert not [row for row in rows if "ann" in row.replace("annotator", "") or "bob" in row]
    assert rows == [line(row) for row in FORMATS["events"](Pseudonyms(KEY).hide(events))]
    names = {json.loads(row)["label"]["annotator"] for row in rows if '"label"' in row}
    assert names == {Pseudonyms(KEY).of("ann")} != {Pseudonyms(b"other").of("ann")}
    with_names = [line(row) for row in FORMATS["events"](events)]
    assert [row for row in with_names if '"ann"' in row], "the negative control: without it the names are there"


def test_machines_keep_their_names() -> None:
    assert Pseudonyms(KEY).of("judge/llm") == "judge/llm"
    assert Pseudonyms(KEY).of("") == ""


@pytest.mark.parametrize("format_name", ["trl", "rewardbench", "kto"])
def test_what_is_exported_and_imported_exports_as_the_same_rows(place: Place, format_name: str) -> None:
    """The texts and their order; ids and policy versions are the importing store's own."""
    out = list(FORMATS[format_name](labelled(place("one.db"))))
    people = People(place("two.db"))
    desk = ApplicationDesk(people.people)
    for row in read_rows([line(row) for row in out], format_name):
        served = imported_group(row)
        ids = [c.completion_id for c in served.completions]
        verdict = Kept(*ids) if len(ids) == 2 else Thumb(ids[0], row.up)
        desk.submit("run", "import", verdict, served, f"r{row.line}").result(WAIT)
    again = list(FORMATS[format_name](people.database.events("", 0, 100).result(WAIT)))
    people.desk.close()
    people.database.close()
    own = ("id", "subset", "chosen_model", "rejected_model")
    assert len(out) >= 1
    assert [{k: v for k, v in row.items() if k not in own} for row in again] == [
        {k: v for k, v in row.items() if k not in own} for row in out
    ]


def test_a_parquet_folder_has_every_compared_pair_with_its_labels(tmp_path: Path, place: Place) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    events = labelled(place("feedback.db"))
    assert write_folder(tmp_path / "out", pair_rows(Pseudonyms(KEY).hide(events))) == 2
    (path,) = (tmp_path / "out" / "data").glob("*.parquet")
    rows = parquet.read_table(path).to_pylist()
    assert [(row["first"], row["second"], row["p_first_wins"] > 0.5) for row in rows] == [
        ("left", "right", True),
        ("left", "right", False),
    ]
    (label,) = rows[1]["labels"]
    assert (label["outcome"], label["annotator"]) == ("tie", Pseudonyms(KEY).of("ann"))
    assert "data/train-*.parquet" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(Conflict, match="already exists"):
        write_folder(tmp_path / "out", [])
    assert not list(tmp_path.glob(".*.partial"))
