"""A folder of Parquet with a dataset card: what `datasets.load_dataset(FOLDER)` and any Parquet reader understand."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from iterpo.errors import Conflict, InvalidInput

ROWS_A_GROUP = 1_000
"""Rows in memory at the same time, and rows of a Parquet row group."""
DATA = "data/train-00000-of-00001.parquet"
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# Preferences

Written by `iterpo labels export --format parquet`. One row is a compared pair of answers.

| column | is |
|---|---|
| `prompt` | messages with role and content |
| `first`, `second` | the two answers, in the task's own order |
| `p_first_wins` | what all labels say together, in [0, 1] |
| `weight` | how many votes that is worth; 0 when none that counts said anything about the order |
| `strength` | how much better the better one is: 1 to 3 |
| `p_both_bad` | share of the votes that found neither acceptable |
| `first_policy_version`, `second_policy_version` | who wrote the answers |
| `labels` | every label: annotator (a pseudonym), outcome, strength, rationale, order, seconds, guideline, aspects |
"""


def write_folder(out: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write the rows to a new folder, whole or not at all; returns their number. Memory holds ROWS_A_GROUP rows.

    Raises Conflict OUT_EXISTS, InvalidInput when pyarrow is missing or the place cannot be written to.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InvalidInput(
            "Parquet needs pyarrow.", 'Install it: pip install "iterpo[parquet]".', "NO_PYARROW"
        ) from error
    if out.exists():
        raise Conflict(f"{out} already exists.", "Name a new folder, or move that one away.", "OUT_EXISTS")
    import pyarrow

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    count = 0
    try:
        (partial / DATA).parent.mkdir(parents=True)
        (partial / "README.md").write_text(CARD, encoding="utf-8")
        with parquet.ParquetWriter(partial / DATA, _schema()) as writer:
            for part in _parts(iter(rows)):
                writer.write_table(pyarrow.Table.from_pylist(part, schema=_schema()))
                count += len(part)
        partial.rename(out)
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written: {error.strerror}.", "Name a folder in a writable place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _schema() -> Any:
    from pyarrow import bool_, float64, int64, list_, schema, string, struct

    message = struct([("role", string()), ("content", string())])
    aspect = struct([("aspect", string()), ("outcome", string())])
    label = struct(
        [
            ("annotator", string()),
            ("outcome", string()),
            ("strength", int64()),
            ("rationale", string()),
            ("presented_swapped", bool_()),
            ("duration_seconds", float64()),
            ("guideline_version", string()),
            ("propensity", float64()),
            ("aspects", list_(aspect)),
        ]
    )
    return schema(
        [
            ("task_id", string()),
            ("prompt", list_(message)),
            ("first", string()),
            ("second", string()),
            ("p_first_wins", float64()),
            ("weight", float64()),
            ("strength", float64()),
            ("p_both_bad", float64()),
            ("first_policy_version", int64()),
            ("second_policy_version", int64()),
            ("labels", list_(label)),
        ]
    )


def _parts(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while part := list(islice(rows, ROWS_A_GROUP)):
        yield part
