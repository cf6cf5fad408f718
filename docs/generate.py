"""Writes every table of README.md and docs/ that describes code from that code: `python docs/generate.py`.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test compares what is committed with what this
makes, so that what is documented and what exists are the same.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
FILES = ("README.md", *(f"docs/{n}.md" for n in ("configuration", "contract", "errors", "methods", "operations")))
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Every command of the command line, groups spelled out."""
    from iterpo.cli.main import COMMANDS

    rows = []
    for name, (module, summary) in COMMANDS.items():
        command: click.Command = import_module(module).command
        if isinstance(command, click.Group):
            rows += [
                (f"`iterpo {name} {sub}`", c.get_short_help_str(120)) for sub, c in sorted(command.commands.items())
            ]
        else:
            rows.append((f"`iterpo {name}`", summary))
    return table(("command", "does"), rows)


def algorithms() -> str:
    from iterpo.algorithms import ALGORITHMS

    rows = [
        (
            f"`{a.name}`",
            a.prompt_sampling.name,
            a.response_sampling.name,
            a.gradient_coefficient.name,
            a.normalizer.name,
            a.reference,
            a.source,
        )
        for a in ALGORITHMS
    ]
    columns = (
        "method",
        "which prompts",
        "which responses",
        "gradient coefficient",
        "normalizer",
        "reference",
        "source",
    )
    return table(columns, rows)


def methods() -> str:
    """Every method's name, by what it learns from."""
    from iterpo.algorithms import ALGORITHMS

    kinds: dict[str, list[str]] = {}
    for a in ALGORITHMS:
        needs, offline = a.gradient_coefficient.needs, a.response_sampling.offline
        likelihood = not needs & {"rewards", "pairs", "roles"}
        given = "preferences, given" if offline else "preferences, online"
        kind = "likelihood" if likelihood else "rewards" if "rewards" in needs else given
        kinds.setdefault(kind, []).append(f"`{a.name}`")
    return table(("learns from", "methods"), [(kind, ", ".join(names)) for kind, names in kinds.items()])


def lacks() -> str:
    from iterpo.algorithms import ALGORITHMS

    return table(("method", "not implemented"), [(f"`{a.name}`", a.lacks) for a in ALGORITHMS if a.lacks])


def coefficients() -> str:
    from iterpo.gradient_coefficient import COEFFICIENTS

    rows = [(f"`{name}`", f"`{c.formula}`", ", ".join(sorted(c().needs))) for name, c in COEFFICIENTS.items()]
    return table(("coefficient", "c_t", "needs"), rows)


def prompt_samplers() -> str:
    from iterpo.prompt_sampling import PROMPT_SAMPLERS

    return _members(PROMPT_SAMPLERS)


def response_samplers() -> str:
    from iterpo.response_sampling import RESPONSE_SAMPLERS

    return _members(RESPONSE_SAMPLERS)


def _members(axis: Mapping[str, Any]) -> str:
    """Name, fields with their defaults, and the first paragraph of the docstring."""
    rows = []
    for name, member in axis.items():
        values = ", ".join(f"`{f.name}` {getattr(member(), f.name)}" for f in dataclasses.fields(member))
        rows.append((f"`{name}`", values, " ".join(inspect.cleandoc(member.__doc__).split("\n\n")[0].split())))
    return table(("name", "defaults", "does"), rows)


def configuration() -> str:
    """Every key of iterpo.toml: section, default, and the docstring of its field."""
    from iterpo.config import Settings

    return "\n".join(_sections(Settings, ""))


def _sections(model: type[BaseModel], name: str) -> Iterator[str]:
    notes = _docstrings(model)
    nested: list[tuple[str, type[BaseModel]]] = []
    rows = []
    for key, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            default = field.get_default(call_default_factory=True)
            note = notes.get(key, "")
            rows.append((f"`{key}`", "unset" if "Unset: " in note else _default(field, default), note))
        else:
            nested.append((f"{name}.{key}".lstrip(".") + (".NAME" if key == "labelers" else ""), inner))
    if rows:
        yield f"### `[{name}]`\n" if name else "### Top level\n"
        yield table(("key", "default", "meaning"), rows)
    for place, inner in nested:
        yield from _sections(inner, place)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _default(field: FieldInfo, value: Any) -> str:
    if field.is_required():
        return "required"
    if value is None:
        return '`""`' if "Path" in str(field.annotation) else "the algorithm's"
    text = f'"{value}"' if isinstance(value, str | Path) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string that follows a field is its documentation."""
    source = ast.parse(Path(str(sys.modules[model.__module__].__file__)).read_text(encoding="utf-8"))
    body = next(n.body for n in source.body if isinstance(n, ast.ClassDef) and n.name == model.__name__)
    notes = {}
    for field, note in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
            notes[ast.unparse(field.target)] = " ".join(str(note.value.value).split())
    return notes


def rpcs() -> str:
    """Every RPC of the .proto files with the comment above it and the roles that may call it."""
    from services.auth import ROLE_METHODS

    rows = []
    for file in sorted((ROOT / "protos/iterpo/v1").glob("*.proto")):
        text = file.read_text(encoding="utf-8")
        service = re.search(r"^service (\w+)", text, re.MULTILINE)
        signature = r"((?:  // .*\n)*)  rpc (\w+)\((?:stream )?\w+\) returns \((stream )?"
        for comment, name, arrow in re.findall(signature, text):
            method = f"{service[1] if service else ''}/{name}"
            roles = [r for r, methods in ROLE_METHODS.items() if method in methods or "*" in methods]
            note = " ".join(line.strip().removeprefix("// ") for line in comment.splitlines())
            rows.append((f"`{method}`", "stream" if arrow else "unary", ", ".join(roles), note))
    return table(("RPC", "answer", "roles", "does"), rows)


def errors() -> str:
    """Every stable reason that the code can give, found in its source."""
    from iterpo import errors as module

    classes = {n: c for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, module.IterpoError)}
    found: dict[str, tuple[str, set[str]]] = {c.reason: (n, set()) for n, c in classes.items()}
    for file in sources():
        for call in _calls(file, set(classes)):
            for reason in _reasons(call):
                found.setdefault(reason, (_name(call), set()))[1].add(str(file.relative_to(ROOT)))
    rows = [
        (f"`{reason}`", f"`{name}`", classes[name].code, ", ".join(sorted(files)) or "wherever the class is raised")
        for reason, (name, files) in sorted(found.items())
    ]
    return table(("reason", "class", "gRPC status", "raised in"), rows)


def _reasons(call: ast.Call) -> list[str]:
    given = [*call.args[2:3], *(k.value for k in call.keywords if k.arg == "reason")]
    return [g.value for g in given if isinstance(g, ast.Constant) and isinstance(g.value, str)]


def metrics() -> str:
    """Every metric of every service: name as Prometheus shows it, type, unit, labels, meaning, what to do."""
    rows = [
        (f"`{m.name}`", m.kind, m.unit, ", ".join(m.labels), service, m.meaning, m.when_off)
        for service, described in all_metrics().items()
        for m in described
    ]
    return table(("metric", "type", "unit", "labels", "service", "meaning", "when it is off"), sorted(rows))


def all_metrics() -> dict[str, list[Any]]:
    """Service -> its metrics' descriptions; `all`: what each of them has."""
    from prometheus_client import CollectorRegistry

    from services.call_metrics import CallMetrics
    from services.inference.metrics import InferenceMetrics
    from services.instruments import Instruments, watch_disk
    from services.labeling.metrics import LabelingMetrics
    from services.learner.metrics import LearnerMetrics
    from services.metrics_endpoint import PROCESS

    registry = CollectorRegistry()
    disk = Instruments(registry)
    watch_disk(disk, Path())
    of_services = {"inference": InferenceMetrics, "labeling": LabelingMetrics, "learner": LearnerMetrics}
    common = [*CallMetrics(registry).made.described, *disk.described, *PROCESS]
    return {"all": common} | {name: made(registry).made.described for name, made in of_services.items()}


def roles() -> str:
    from services.auth import ROLE_METHODS

    return table(
        ("role", "may call"), [(f"`{r}`", ", ".join(m).replace("*", "everything")) for r, m in ROLE_METHODS.items()]
    )


def sources() -> Iterator[Path]:
    for package in ("iterpo", "services"):
        yield from (p for p in sorted((ROOT / package).rglob("*.py")) if "v1" not in p.parts)


def _calls(file: Path, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and _name(node) in names:
            yield node


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "algorithms": algorithms,
    "methods": methods,
    "lacks": lacks,
    "coefficients": coefficients,
    "prompt_samplers": prompt_samplers,
    "response_samplers": response_samplers,
    "configuration": configuration,
    "rpcs": rpcs,
    "errors": errors,
    "metrics": metrics,
    "roles": roles,
}


def generated(text: str) -> str:
    """The text with every marked table made anew."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n{m[3]}", text)


def main() -> None:
    for name in FILES:
        path = ROOT / name
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
