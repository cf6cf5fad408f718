"""Which file a run reads follows from how it gets its responses, not from its algorithm's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig
from iterpo.run_data import read_run_data

PAIR = '{"id": "from pairs", "prompt": "q", "chosen": "good", "rejected": "bad"}'
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text('{"id": "from prompts", "prompt": "q"}')
    (tmp_path / "pairs.jsonl").write_text(PAIR)
    return tmp_path


def read(folder: Path, **run) -> list[tuple[str, tuple[str, ...]]]:
    examples = read_run_data(RunConfig(**run), folder).examples
    return [(e.prompt.prompt_id, e.answers) for e in examples]


BOTH = {"prompts": "prompts.jsonl", "pairs": "pairs.jsonl"}


def test_with_both_files_named_each_algorithm_reads_its_own(folder: Path) -> None:
    assert read(folder, algorithm="grpo", **BOTH) == [("from prompts", ())]
    assert read(folder, algorithm="offline_dpo", **BOTH) == [("from pairs", ("good", "bad"))]
    assert read(folder, algorithm="sft", **BOTH) == [("from pairs", ("good",))]


def test_an_algorithm_that_was_made_offline_reads_pairs(folder: Path) -> None:
    run = {"algorithm": "online_dpo", "response_sampling": {"name": "offline_pairs"}}
    assert read(folder, **run, **BOTH) == [("from pairs", ("good", "bad"))]
    assert len(read(folder, **run)[0][1]) == 2  # the demo's own pairs


def test_naming_only_the_other_file_is_refused_rather_than_replaced_by_the_demo_s(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"Set run\.prompts\."):
        read(folder, algorithm="grpo", pairs="pairs.jsonl")
    with pytest.raises(InvalidConfig, match=r"Set run\.pairs\."):
        read(folder, algorithm="sft", prompts="prompts.jsonl")


def test_reading_a_run_s_data_loads_no_torch() -> None:
    program = "import sys, iterpo.run_data; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_documents_are_learned_from_their_first_token_on(folder: Path) -> None:
    (folder / "texts.jsonl").write_text('{"text": "Once upon a time."}\n{"id": "b", "text": "The end."}')
    found = read_run_data(RunConfig(algorithm="pretrain", pairs="texts.jsonl"), folder).examples
    assert [e.answers for e in found] == [("Once upon a time.",), ("The end.",)]
    assert found[0].prompt.messages[0].role == "document"
