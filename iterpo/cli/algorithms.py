"""`iterpo algorithms`: the survey's table as the terminal or a machine likes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iterpo.cli.options import json_option, print_json, print_table

if TYPE_CHECKING:
    from iterpo.algorithms import Algorithm


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the methods: what each samples, how it weighs tokens, how it normalises, and whose settings it has.

    With NAME, one method: its three axes, defaults, source, formula, and what of the paper is not implemented.
    """
    from iterpo.algorithms import ALGORITHMS, find

    chosen = [find(name)] if name else list(ALGORITHMS)
    if as_json:
        print_json([described(a) for a in chosen])
    elif name:
        _show(chosen[0])
    else:
        print_table([row(a) for a in chosen], folding="source")


def row(algorithm: Algorithm) -> dict[str, str]:
    """One line of the table."""
    return {
        "name": algorithm.name,
        "prompt_sampling": algorithm.prompt_sampling.name,
        "response_sampling": algorithm.response_sampling.name,
        "gradient_coefficient": algorithm.gradient_coefficient.name,
        "normalizer": algorithm.normalizer.name,
        "reference": algorithm.reference,
        "source": algorithm.source,
    }


def described(algorithm: Algorithm) -> dict[str, Any]:
    """Everything that is known of a method."""
    return row(algorithm) | {
        "formula": algorithm.gradient_coefficient.formula,
        "needs": sorted(algorithm.gradient_coefficient.needs),
        "regularizers": [r.name for r in algorithm.regularizers],
        "not_implemented": algorithm.lacks,
        "defaults": algorithm.defaults,
    }


def _show(algorithm: Algorithm) -> None:
    """The method, axis by axis, as lines of name and value."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    found = described(algorithm)
    defaults = found.pop("defaults")
    for axis in ("prompt_sampling", "response_sampling", "gradient_coefficient", "normalizer"):
        found[axis] = f"{found[axis]} {_fields(defaults.pop(axis))}".rstrip()
    kl = defaults.pop("kl")
    found["kl"] = _fields(kl) if kl["beta"] else "none"
    replay = defaults.pop("replay")
    found["replay"] = _fields(replay) if replay["groups"] else "none"
    for regularizer in found["regularizers"]:
        found[regularizer] = _fields(defaults.pop(regularizer)) or "weights from the coefficient"
    found["needs"], found["regularizers"] = ", ".join(found["needs"]), ", ".join(found["regularizers"]) or "none"
    found["not_implemented"] = found["not_implemented"] or "nothing known to be missing"
    for key, value in (found | defaults).items():
        console.print(Text(f"{key.replace('_', ' '):<22}", style="bold") + Text(str(value)))


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())
