"""`iterpo demo`: watch a real model learn a stated preference while it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import json_option, printable
from iterpo.cli.run import HEADER, row_line


@click.command()
@click.option("--algorithm", default="grpo", show_default=True, help="A method of `iterpo algorithms`.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--iterations", type=click.IntRange(1), default=None, help="Instead of the demo's own number.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".iterpo"),
    show_default=True,
    help="Where the model is kept and the demo's folder is made.",
)
@json_option
def command(algorithm: str, seed: int, iterations: int | None, home: Path, as_json: bool) -> None:
    """Serve SmolLM2-135M-Instruct, teach it to answer in one short, friendly sentence, and swap every version in.

    A second client asks all the while; the last line is a JSON object that counts its failures too.
    """
    from rich.console import Console

    from iterpo.demo.demo import Teller, run_demo

    console = Console(stderr=as_json, highlight=False)
    with console.status("Starting") as spinner:

        def status(text: str) -> None:
            spinner.update(text)
            if not console.is_terminal and "iteration" not in text:
                console.print(text, markup=False)

        def row(message: Any) -> None:
            if message.iteration == 1:
                console.print(HEADER, soft_wrap=True)
            console.print(row_line(message), markup=False, soft_wrap=True)

        def answers(shown: list[tuple[str, str, str]]) -> None:
            for prompt, before, after in shown:
                console.print(f"\n{prompt}", style="bold", markup=False)
                console.print(f"  before: {printable(before)}", markup=False)
                console.print(f"  after:  {printable(after)}", markup=False)

        summary = run_demo(algorithm, seed, iterations, home, Teller(status, row, answers))
    console.print(f"\nPlot: {summary['plot']}", markup=False, soft_wrap=True)
    click.echo(json.dumps(summary))
