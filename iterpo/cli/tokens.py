"""`iterpo tokens`: who may call. The file holds digests: a token is shown once, when it is made."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table
from iterpo.tokens import ROLES


@click.group()
def command() -> None:
    """Make, list and take back the tokens of auth.tokens_file. Servers see a change within seconds."""


@command.command()
@click.argument("role", type=click.Choice(ROLES))
@click.option("--person", default="", help="The only annotator or user that it may speak for.")
@click.option("--days", type=click.IntRange(1), help="How long it is good.  [default: for ever]")
@config_option
@json_option
def new(role: str, person: str, days: int | None, config_path: Path | None, as_json: bool) -> None:
    """Make a token of ROLE and print it: this once.

    Its caller keeps it in a file (auth.token_file) or in ITERPO_TOKEN.
    """
    from iterpo.tokens import Grant, digest_of, line_of, new_token

    file = _file(config_path)
    token = new_token()
    until = (datetime.now(UTC) + timedelta(days=days)).date() if days else None
    grant = Grant(digest_of(token), role, person, until)
    _append(file, line_of(grant))
    if as_json:
        print_json({"token": token, **_shown(grant)})
        return
    click.echo(token)
    click.echo(f"It is in {file} as its digest alone: keep it, it is not shown again.", err=True)


@command.command("list")
@config_option
@json_option
def list_tokens(config_path: Path | None, as_json: bool) -> None:
    """Whose tokens there are; the key is what audit logs call each."""
    from iterpo.tokens import read_tokens

    shown = [_shown(grant) for grant in read_tokens(_file(config_path))]
    if as_json:
        print_json(shown)
    else:
        print_table(shown)


@command.command()
@click.argument("key")
@config_option
@json_option
def revoke(key: str, config_path: Path | None, as_json: bool) -> None:
    """Take the token KEY (as `list` says) out of the file; its sessions on the pages end, too."""
    from iterpo.errors import NotFound
    from iterpo.tokens import grant_in, read_tokens

    file = _file(config_path)
    found = [grant for grant in read_tokens(file) if grant.digest.startswith(key) and len(key) >= 8]
    if len(found) != 1:
        raise NotFound(
            f"{len(found) or 'No'} tokens of {file} begin with {key!r}.", "See: iterpo tokens list", "TOKEN_UNKNOWN"
        )
    [gone] = found
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (grant := grant_in(line)) is None or grant.digest != gone.digest]
    _write(file, "".join(f"{line}\n" for line in kept))
    if as_json:
        print_json(_shown(gone))
    else:
        click.echo(f"taken back: {gone.role} {gone.person}".rstrip())


def _file(config_path: Path | None) -> Path:
    from iterpo.config import load
    from iterpo.errors import InvalidConfig

    file = load(config_path).auth.tokens_file
    if file is None:
        raise InvalidConfig(
            "auth.tokens_file is not set.", 'Add to iterpo.toml: [auth] tokens_file = "tokens".', "NO_TOKENS_FILE"
        )
    return file


def _append(file: Path, line: str) -> None:
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    _write(file, before + ("" if not before or before.endswith("\n") else "\n") + line + "\n")


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    unfinished.replace(file)


def _shown(grant: Any) -> dict[str, str]:
    return {
        "key": grant.digest[:16],
        "role": grant.role,
        "person": grant.person,
        "until": str(grant.until or ""),
        "stands_there": "the token itself" if grant.token else "its digest",
    }
