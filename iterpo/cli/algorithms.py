"""`iterpo algorithms`: the survey's table as the terminal or a machine likes it."""

from __future__ import annotations

import click

from iterpo.cli.options import json_option, print_json, print_table


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the methods: what each samples, how it weighs tokens, how it normalises, and whose settings it has.

    With NAME, also its published defaults.
    """
    from iterpo.algorithms import TABLE
    from iterpo.errors import NotFound

    if name is not None and name not in TABLE:
        raise NotFound(f"There is no algorithm `{name}`.", f"Use one of: {', '.join(TABLE)}.")
    chosen = [TABLE[name]] if name else list(TABLE.values())
    rows = [
        {
            "name": a.name,
            "prompt_sampling": a.prompt_sampling.name,
            "response_sampling": a.response_sampling.name,
            "gradient_coefficient": a.gradient_coefficient.name,
            "normalizer": a.normalizer.name,
            "reference": a.reference,
            "source": a.source,
        }
        for a in chosen
    ]
    if as_json:
        print_json([row | {"defaults": a.defaults} for row, a in zip(rows, chosen, strict=True)])
        return
    print_table(rows, folding="source")
    if name:
        print_json(chosen[0].defaults)
