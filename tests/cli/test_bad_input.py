"""Starting a run with input that cannot work, through the real command line against the learner's real service.

No model and no other process is needed: every one of these is refused before a run exists.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from iterpo.cli.main import main
from iterpo.config import load
from iterpo.learner.ledger import Ledger
from iterpo.v1 import learner_pb2_grpc
from services.host import Host, ServerSettings
from services.learner.assembly import Assembly
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager
from services.learner.servicer import LearnerServicer


@dataclass
class Command:
    """Runs `iterpo ... --json` in a thread; returns the exit code and the error it printed."""

    config: Path
    ledger: Ledger
    capsys: pytest.CaptureFixture[str]
    rest: str

    async def __call__(self, run_section: str, *arguments: str) -> tuple[int, dict[str, str]]:
        self.config.write_text(f"{self.rest}\n[run]\n{run_section}\n")
        code = await asyncio.wait_for(asyncio.to_thread(self._run, arguments), 30)
        return code, json.loads(self.capsys.readouterr().err)["error"]

    def _run(self, arguments: tuple[str, ...]) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json", "--config", str(self.config)])
        return int(ended.value.code or 0)


@pytest.fixture
def learning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    @asynccontextmanager
    async def start() -> AsyncIterator[Command]:
        host = Host("learner", ServerSettings(), CollectorRegistry())
        config = tmp_path / "iterpo.toml"
        away = '[inference]\naddress = "127.0.0.1:1"\n[labeling]\naddress = "127.0.0.1:2"\n'
        rest = f'data_dir = "."\n[learner]\naddress = "127.0.0.1:{host.bind()}"\n{away}'
        config.write_text(rest)
        ledger = Ledger(tmp_path / "learner.db")
        runs = RunManager(ledger, Assembly(load(config)), LearnerMetrics(CollectorRegistry()))
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(runs), host.server)
        task = asyncio.create_task(host.run(["iterpo.v1.LearnerService"]))
        try:
            yield Command(config, ledger, capsys, rest)
        finally:
            host.stop()
            await asyncio.wait_for(task, 20)
            ledger.close()

    return start


@pytest.mark.parametrize(
    ("run_section", "arguments", "reason", "says"),
    [
        ('prompts = "nowhere.jsonl"', [], "PROMPT_FILE_MISSING", "nowhere.jsonl"),
        ('heldout = "nowhere.jsonl"', [], "PROMPT_FILE_MISSING", "nowhere.jsonl"),
        ('prompts = "empty.jsonl"', [], "PROMPT_FILE_EMPTY", "holds no prompts"),
        ('prompts = "blank.jsonl"', [], "PROMPT_FILE_LINE", "blank.jsonl:2 has an empty prompt"),
        ('prompts = "twice.jsonl"', [], "DUPLICATE_PROMPT", "'a' is twice"),
        ("", ["--algorithm", "grop"], "INVALID_CONFIG", "grop"),
        ('algorithm = "grpo"\n[run.response_sampling]\nname = "groop"', [], "INVALID_CONFIG", "groop"),
        ('algorithm = "grpo"\n[run.gradient_coefficient]\nname = "dpo"', [], "IMPOSSIBLE_TRIPLE", "needs pairs"),
        (
            'algorithm = "online_dpo"\nlabeler = "people"\n[run.prompt_sampling]\nname = "reward_filter"',
            [],
            "IMPOSSIBLE_TRIPLE",
            "a half on average",
        ),
        ('algorithm = "offline_dpo"\npairs = "good.jsonl"', [], "NO_ANSWERS", "learns from given answers"),
        ("iteratons = 3", [], "INVALID_CONFIG", "iteratons"),
    ],
)
async def test_a_run_that_cannot_work_exits_with_two_names_the_fix_and_is_not_created(
    learning, tmp_path, run_section, arguments, reason, says
):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "blank.jsonl").write_text('{"prompt": "Hello?"}\n{"prompt": "  "}\n')
    (tmp_path / "twice.jsonl").write_text('{"id": "a", "prompt": "One?"}\n{"id": "a", "prompt": "Two?"}\n')
    (tmp_path / "good.jsonl").write_text('{"prompt": "Hello?"}\n')
    async with learning() as command:
        code, error = await command(run_section, "run", "start", "mine", *arguments)
        assert command.ledger.run_ids() == []
    assert code == 2
    assert error["reason"] == reason
    assert says in error["message"]
    assert error["fix"]


async def test_a_run_that_nobody_knows_is_said_to_be_unknown(learning):
    async with learning() as command:
        code, error = await command("", "run", "resume", "mine")
    assert (code, error["reason"]) == (2, "RUN_NOT_FOUND")


@pytest.mark.parametrize(("name", "reason"), [("missing", "MODEL_MISSING"), ("corrupt", "MODEL_WEIGHTS")])
def test_up_refuses_a_model_that_is_missing_or_corrupt_before_it_starts_anything(tmp_path, capsys, name, reason):
    corrupt = tmp_path / "corrupt"
    corrupt.mkdir()
    (corrupt / "config.json").write_text('{"model_type": "llama"}')
    (corrupt / "tokenizer.json").write_text("{}")
    (corrupt / "model.safetensors").write_bytes(b"not weights")
    config = tmp_path / "iterpo.toml"
    config.write_text(f'data_dir = "data"\n[model]\npath = "{tmp_path / name}"\n')
    with pytest.raises(SystemExit) as ended:
        main(["up", "--json", "--config", str(config)])
    assert ended.value.code == 2
    assert json.loads(capsys.readouterr().err)["error"]["reason"] == reason
    assert not (tmp_path / "data" / "logs").exists()
