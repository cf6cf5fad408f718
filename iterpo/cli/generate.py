"""`iterpo generate`: one prompt, one streamed answer."""

from __future__ import annotations

from pathlib import Path

import click

from iterpo.cli.options import config_option, json_option, print_json, printable


@click.command()
@click.argument("prompt")
@click.option(
    "--policy", default="serving", show_default=True, help="serving, candidate, previous, base, a version or run/NAME."
)
@click.option("--system", default="", help="A system message.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.7, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, default=None, help="Makes the answer repeatable.")
@config_option
@json_option
def command(
    prompt: str,
    policy: str,
    system: str,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Stream the answer to PROMPT."""
    from iterpo.cli.answers import stream_answer
    from iterpo.clients.channel import connect_service
    from iterpo.config import load
    from iterpo.types import Message, SamplingSettings

    messages = [Message("system", system)] if system else []
    messages.append(Message("user", prompt))
    sampling = SamplingSettings(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with connect_service(load(config_path), "inference", "client") as channel:
        answer = stream_answer(channel, messages, sampling, policy)
        for delta in answer:
            if not as_json:
                click.echo(printable(delta), nl=False)
    if as_json:
        print_json(answer.summary())
    else:
        click.echo()
