"""`iterpo store`: look after the feedback store, a SQLite file or a PostgreSQL database."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table

store_option = click.option("--store", "where", help="A file or postgresql://...  [default: labeling.store]")


@click.group()
def command() -> None:
    """Bring the feedback store up to date, check it, back it up, copy it."""


@command.command()
@store_option
@config_option
@json_option
def migrate(where: str | None, config_path: Path | None, as_json: bool) -> None:
    """Bring its tables to this iterpo's version. Stop the labeling servers on it first.

    A SQLite file is also brought up to date when a labeling server opens it; a PostgreSQL database is not, as other
    servers of the older version may be on it.
    """
    from iterpo.store.whole import migrate as bring_up_to_date

    before, after = bring_up_to_date(_store(where, config_path))
    if as_json:
        print_json({"version_before": before, "version": after})
    else:
        click.echo(f"schema version {after}" + (f", was {before}" if before != after else ", as it was"))


@command.command()
@store_option
@config_option
@json_option
def check(where: str | None, config_path: Path | None, as_json: bool) -> None:
    """Whether what it says of itself is true: labels, tasks and counts against the events. Exit code 1 if not.

    Servers may go on; of PostgreSQL and SQLite alike one moment is looked at.
    """
    from iterpo.store.check import check as findings_of
    from iterpo.store.whole import reading

    with reading(_store(where, config_path)) as whole:
        findings = findings_of(whole, time.time())
    broken = [finding for finding in findings if finding.broken]
    if as_json:
        print_json({"sound": not broken, "laws": {finding.law: finding.broken for finding in findings}})
    else:
        print_table([{"law": f.law, "rows that break it": f.broken or "none"} for f in findings])
        click.echo(
            "sound" if not broken else f"{len(broken)} laws are broken: restore a backup, or copy what is sound."
        )
    if broken:
        sys.exit(1)


@command.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@store_option
@config_option
@json_option
def backup(out: Path, where: str | None, config_path: Path | None, as_json: bool) -> None:
    """Write a consistent copy to OUT, servers running.

    Of a SQLite file a SQLite file, which is opened as it is; of PostgreSQL what pg_restore reads.
    """
    from iterpo.store.whole import backup as write_backup

    write_backup(_store(where, config_path), out)
    size = out.stat().st_size
    if as_json:
        print_json({"path": str(out), "bytes": size})
    else:
        click.echo(f"{out}: {size / 1e6:.1f} MB")


@command.command()
@click.argument("source")
@click.argument("target")
@json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy SOURCE into the empty TARGET, each a file or postgresql://..., and compare counts and digests.

    Everything is copied, or nothing. Stop the labeling server of a SQLite file first; then set labeling.store.
    """
    from iterpo.store.copying import copy as copy_all
    from iterpo.store.whole import filling, reading

    def progress(table: str, rows: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{table}: {rows} rows\033[K", nl=False, err=True)

    with reading(source, alone=True) as whole, filling(target) as empty:
        copied = copy_all(whole, empty, progress)
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        print_json({each.table: {"rows": each.rows, "sha256": each.digest} for each in copied})
    else:
        print_table([{"table": each.table, "rows": each.rows, "sha256 of both": each.digest[:16]} for each in copied])


def _store(where: str | None, config_path: Path | None) -> str:
    from iterpo.config import load
    from iterpo.store.address import use_password

    labeling = load(config_path).labeling
    use_password(labeling.store_password_file)
    return where or labeling.store
