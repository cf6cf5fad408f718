"""`iterpo chat`: a conversation with whatever policy serves at the moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from iterpo.cli.options import config_option, json_option, print_json, printable

HELP = "/new starts over, /policy NAME talks to another version, /quit ends (so does Ctrl-D)."


@click.command()
@click.option(
    "--policy", default="serving", show_default=True, help="serving, candidate, previous, base, a version or run/NAME."
)
@click.option("--system", default="", help="A system message.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.7, show_default=True, help="0 is greedy.")
@config_option
@json_option
def command(
    policy: str, system: str, max_tokens: int, temperature: float, config_path: Path | None, as_json: bool
) -> None:
    """Talk with the serving policy; it may change between two answers, and each says which version spoke.

    The conversation is kept in memory only. Reads lines from a pipe as well.
    """
    from iterpo.cli.answers import stream_answer
    from iterpo.clients.channel import connect_service
    from iterpo.config import load
    from iterpo.types import Message, SamplingSettings

    sampling = SamplingSettings(temperature=temperature, max_tokens=max_tokens)
    start = (Message("system", system),) if system else ()
    history = start
    with connect_service(load(config_path), "inference", "client") as channel:
        for line in _lines(as_json):
            if line == "/new":
                history = start
            elif line.startswith("/policy "):
                policy = line.removeprefix("/policy ").strip()
            elif line.startswith("/"):
                click.echo(HELP, err=True)
            else:
                asked = (*history, Message("user", line))
                answer = stream_answer(channel, asked, sampling, policy)
                for delta in answer:
                    if not as_json:
                        click.echo(printable(delta), nl=False)
                history = (*asked, Message("assistant", answer.text))
                _finish(answer.summary(), as_json)


def _finish(summary: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(summary)
    else:
        click.echo(click.style(f"  [policy {summary['policy_version']}]", dim=True))


def _lines(as_json: bool) -> Iterator[str]:
    """What the person types, without empty lines, until /quit or the end of the input."""
    interactive = not as_json and sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  # importing it gives `input` its line editing and history

        click.echo(HELP, err=True)
    while True:
        try:
            line = input("you> " if interactive else "").strip()
        except EOFError:
            return
        if line == "/quit":
            return
        if line:
            yield line
