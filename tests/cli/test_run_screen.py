"""What `iterpo run watch` draws on a terminal."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console

from iterpo.cli.run import HEADER, heldout_gain, row_line
from iterpo.cli.run_screen import screen, sparkline
from iterpo.v1 import learner_pb2 as pb
from tests.page.run_process import page_with_runs
from tests.services.labeling_process import ROOT


def row(number: int, **metrics: float) -> pb.IterationRow:
    numbers = {"tokens": 60.0, "completions": 2.0, "entropy": 1.0 / number} | metrics
    return pb.IterationRow(
        iteration=number, proved=True, train_reward=number / 10, heldout_reward=0.5, kl_nats=0.1, metrics=numbers
    )


def drawn(run: pb.Run, state: str, rows: list[pb.IterationRow]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(screen(run, state, heldout_gain(run), rows, HEADER, [row_line(r) for r in rows]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_curves_lowest_and_highest_values_are_the_lowest_and_highest_blocks() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([1.0, math.nan, 0.0]) == "█ ▁"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([math.nan]) == ""


def test_a_long_curve_keeps_its_last_value() -> None:
    assert len(sparkline([float(n) for n in range(1000)], 10)) == 10
    assert sparkline([0.0] * 999 + [1.0], 10) == "▁▁▁▁▁▁▁▁▁█"


def test_the_screen_has_what_a_run_is_and_the_latest_iterations() -> None:
    rows = [row(n) for n in range(1, 21)]
    text = drawn(
        pb.Run(run_id="mine", algorithm="grpo", iteration=20, iterations=50, status="updating"), "running", rows
    )
    assert "mine  grpo  running  iteration 20/50" in text
    assert "updating" in text
    assert "length, tokens" in text
    assert "30" in text
    assert "margin" not in text  # GRPO has none
    table = text[text.index("iteration  version") :]
    assert [int(line.split()[0]) for line in table.splitlines()[1:9]] == list(range(13, 21))


def test_a_run_without_rows_is_a_screen_too() -> None:
    text = drawn(pb.Run(run_id="mine", algorithm="dpo", status="loading the model"), "running", [])
    assert "Ctrl-C leaves" in text
    assert "loading the model" in text
    assert "iteration  version" not in text


def test_hostile_status_cannot_move_the_cursor() -> None:
    assert "\x1b" not in drawn(pb.Run(run_id="mine", status="\x1b[2J gone"), "failed", [])


def test_on_a_real_terminal_it_is_drawn_and_ends_with_the_run(tmp_path: Path) -> None:
    with page_with_runs(tmp_path) as runs:
        runs.create("mine")
        runs.add_rows("mine", 1, 30)
        config = tmp_path / "iterpo.toml"
        command = [sys.executable, "-m", "iterpo.cli.main", "run", "watch", "mine", "--config", str(config)]
        master, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (50, 120))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
            os.close(terminal)
            text = b"".join(iter(lambda: _read(master), b"")).decode()
            assert process.wait(timeout=30) == 0
    assert "reward, held-out" in text
    assert "█" in text
    assert "Ctrl-C leaves" not in text, "the run has ended"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # the other side is closed
