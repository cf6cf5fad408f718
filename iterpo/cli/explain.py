"""`iterpo explain`: what a method does to every token of a batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, printable


@click.command()
@click.argument("method", required=False, default="")
@click.option("--batch", "batch_path", type=click.Path(path_type=Path, allow_dash=True), help="JSON file, or -.")
@click.option("--run", "run_id", help="Instead of a file: what an iteration of this run was trained on.")
@click.option("--iteration", type=click.IntRange(min=1), help="Of the run.  [default: the latest]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a parameter; may be repeated.")
@config_option
@json_option
def command(
    method: str,
    batch_path: Path | None,
    run_id: str | None,
    iteration: int | None,
    settings: tuple[str, ...],
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Show the gradient coefficient that METHOD gives every token of a batch.

    The batch is a JSON file of sequences with their log-probs, rewards or roles (docs/methods.md), or what a run was
    trained on: then METHOD is the run's own, with the run's parameters, unless you name another. Green tokens are made
    more likely, red ones less; --json gives coefficients, gradients and the objective in full precision.
    """
    from iterpo.errors import InvalidInput
    from iterpo.explain import explain

    given = _settings(settings)
    if (batch_path is None) == (run_id is None):
        raise InvalidInput("There is no batch, or there are two.", "Give either --batch FILE or --run RUN.")
    if run_id is not None:
        client = _learner(config_path)
        found = client.explain_batch(run_id, iteration or 0, method, given)
        batch = {} if as_json else client.batch(run_id, iteration or 0)[0]["batch"]
    elif not method or batch_path is None:
        raise InvalidInput("No method is named.", "Name one of: iterpo algorithms.")
    else:
        batch = _read(batch_path)
        found = explain(method, batch, given)
    if as_json:
        print_json(found)
    else:
        _show(found, batch)


def _learner(config_path: Path | None) -> Any:
    from iterpo.clients.channel import connect_service
    from iterpo.clients.learner import LearnerClient
    from iterpo.config import load

    return LearnerClient(connect_service(load(config_path), "learner"))


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    from iterpo.errors import InvalidInput

    parsed = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--set {text!r} is no KEY=VALUE.", "Write for example --set beta=0.2.")
        parsed[key.strip()] = value.strip()
    return parsed


def _read(path: Path) -> Any:
    from iterpo.errors import InvalidInput

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", "Name a JSON file.", "BAD_BATCH") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}.", "Mend the file.", "BAD_BATCH") from error


def _show(found: dict[str, Any], batch: Any) -> None:
    """One line a token, coloured by the sign and size of its coefficient; then the numbers."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"{found['method']}, normalizer {found['normalizer']}", style="bold"))
    console.print(Text(", ".join(f"{k} {v}" for k, v in found["parameters"].items()), style="dim"))
    largest = max((abs(c) for line in found["coefficients"] for c in line), default=0.0) or 1.0
    for raw, line in zip(batch["sequences"], found["coefficients"], strict=True):
        role = raw.get("role") or ""
        reward = "" if raw.get("reward") is None else f"reward {raw['reward']:g}"
        console.print(Text(f"\n{printable(str(raw['group']))}  {role}  {reward}".rstrip(), style="bold"))
        texts = raw.get("tokens") or [str(t) for t in range(len(line))]
        for text, logprob, c in zip(texts, raw["logprobs"], line, strict=True):
            shade = int(55 + 200 * min(1.0, abs(c) / largest))
            colour = f"rgb(0,{shade},0)" if c > 0 else f"rgb({shade},0,0)" if c < 0 else "dim"
            console.print(Text(f"  {printable(text):<16} log pi {logprob:8.4f}   c {c:+.6f}", style=colour))
    console.print(f"\nobjective {found['objective']:.6g}   " + "   ".join(_metric(m) for m in found["metrics"].items()))


def _metric(item: tuple[str, float]) -> str:
    return f"{item[0]} {item[1]:.4g}"
