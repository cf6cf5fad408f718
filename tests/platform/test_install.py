"""The install's own checks: each failure ends with 2 and names the fix. Stand-ins play torch and python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("torch", "code", "words"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", 2, "libcudart"),
        ("class version: cuda = '13.0'\n__version__ = '2.13.0'", 2, "is a CUDA build"),
        ("class version: cuda = None\n__version__ = '2.13.0+cpu'", 0, ""),
    ],
)
def test_a_torch_that_cannot_run_here_is_refused_with_the_fix(
    tmp_path: Path, torch: str, code: int, words: str
) -> None:
    (tmp_path / "torch.py").write_text(torch)
    result = subprocess.run(
        [sys.executable, ROOT / "requirements/check_torch.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == code
    assert words in result.stderr
    assert ("PIP_EXTRA_INDEX_URL" in result.stderr) == (code == 2)


def test_an_old_python_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "requirements").mkdir()
    script = tmp_path / "requirements/install.sh"
    script.write_text((ROOT / "requirements/install.sh").read_text())
    result = subprocess.run(
        ["bash", script], env={"PYTHON": str(old), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "needs Python 3.11" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_labeling_starts_without_the_learners_and_the_engines_packages() -> None:
    """Its image has the core alone: whatever iterpo asks for only as an extra cannot be imported here."""
    program = """
import re, sys
from importlib.metadata import packages_distributions, requires
def plain(name): return re.sub(r"[-_.]+", "-", name).lower()
wanted = [(plain(re.match(r"[A-Za-z0-9._-]+", w)[0]), "extra ==" in w) for w in requires("iterpo")]
extras = {name for name, extra in wanted if extra} - {name for name, extra in wanted if not extra} - {"iterpo"}
missing = [module for module, names in packages_distributions().items() if set(map(plain, names)) <= extras]
assert {"torch", "peft", *sys.argv[1:]} <= set(missing)
sys.modules.update(dict.fromkeys(missing))
import services.labeling.__main__
"""

    def run(*more: str) -> str:
        command = [sys.executable, "-c", program, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False).stderr

    assert run() == ""
    assert "AssertionError" in run("psutil")  # negative control: a package of the core is not among the missing
