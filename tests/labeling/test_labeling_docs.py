"""docs/labeling.md names what exists."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from iterpo.labeling.exports import FORMATS
from iterpo.labeling.verifiers import VERIFIERS
from iterpo.store.database import open_database
from services.labeling.metrics import StoreState

TEXT = (Path(__file__).parents[2] / "docs/labeling.md").read_text()


def first_column(title: str) -> set[str]:
    section = TEXT.partition(title)[2].partition("\n\n")[2] if title else TEXT
    table = section[section.index("|") :].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_the_verifiers_table_is_the_registry() -> None:
    assert first_column("## Verifiers") == set(VERIFIERS)


def test_the_formats_table_is_the_exporters() -> None:
    assert first_column("`iterpo labels export --format ... --out FILE`:") == set(FORMATS)


def test_the_store_s_metrics_are_those_named(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    database = open_database(tmp_path / "feedback.db")
    registry.register(StoreState(database))
    shown = set(re.findall(r"# TYPE (\w+)", generate_latest(registry).decode()))
    database.close()
    assert shown == set(re.findall(r"`(iterpo_labeling_\w+)`", TEXT))
