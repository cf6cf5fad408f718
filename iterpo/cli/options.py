"""The options that commands share, and the two ways of printing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

MIN_TABLE_WIDTH = 145
"""Characters. Columns of three letters, which a narrower table would have, cannot be read at all."""

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Settings to use.  [default: ./iterpo.toml if it exists]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")


def print_json(value: Any) -> None:
    """One line, so that streams of objects stay JSON Lines."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_table(rows: Sequence[Mapping[str, object]], folding: str = "") -> None:
    """Columns under the first row's keys. Narrow terminals fold whole lines; of cells only those of `folding` fold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "), no_wrap=column != folding, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(value))) for value in row.values()))
    console = Console()
    console.width = max(console.width, MIN_TABLE_WIDTH)
    console.print(table)


def printable(text: str) -> str:
    """Model text for a terminal: control characters, which could move the cursor or set colours, are shown as such."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
