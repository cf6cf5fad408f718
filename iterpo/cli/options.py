"""The options that commands share, and the two ways of printing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

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


def printable(text: str) -> str:
    """Model text for a terminal: control characters, which could move the cursor or set colours, are shown as such."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
