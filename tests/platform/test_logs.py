"""Logs as JSON: each line an object, with what it is about, and no text of a prompt or an answer."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading

import pytest

from iterpo.v1 import inference_pb2, learner_pb2, policy_pb2
from services import logs
from tests.platform.test_docs import ROOT

logger = logging.getLogger("services.some")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    """What was logged, as JSON."""
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(logs.JsonLines("learner"))
    return lambda: [json.loads(line) for line in caplog.text.splitlines()]


def test_a_line_says_when_who_and_what(lines) -> None:
    logger.warning("run %s is slow", "r")
    [line] = lines()
    assert {name: line[name] for name in ("level", "service", "logger", "message")} == {
        "level": "WARNING",
        "service": "learner",
        "logger": "services.some",
        "message": "run r is slow",
    }
    assert line["time"].endswith("Z")


def test_a_traceback_is_in_its_line(lines) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it failed")
    [line] = lines()
    assert "ValueError: two\nlines" in line["traceback"]


def test_what_a_line_is_about_ends_with_its_block(lines) -> None:
    with logs.about(run="r"):
        with logs.about(request_id="a"):
            logger.info("within")
        logger.info("between")
    logger.info("after")
    assert [(x.get("run"), x.get("request_id")) for x in lines()] == [("r", "a"), ("r", None), (None, None)]


async def test_tasks_and_threads_do_not_mix_what_they_are_about(lines) -> None:
    async def work(name: str) -> None:
        with logs.about(run=name):
            await asyncio.sleep(0.01)
            logger.info(name)

    def in_a_thread() -> None:
        with logs.about(run="thread"):
            logger.info("thread")

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    await asyncio.gather(work("a"), work("b"))
    thread.join()
    assert {line["message"]: line["run"] for line in lines()} == {"a": "a", "b": "b", "thread": "thread"}


def test_a_request_is_named_by_its_ids_and_never_by_its_texts() -> None:
    started = learner_pb2.StartRunRequest(run_id="r", request_id="q")
    promoted = policy_pb2.PromotePolicyRequest(version=3, request_id="q")
    asked = inference_pb2.GenerateRequest(policy="serving")
    asked.messages.add(role="user", content="a secret")
    assert logs.named(started) == {"request_id": "q", "run": "r"}
    assert logs.named(promoted) == {"request_id": "q", "policy_version": "3"}
    assert logs.named(asked) == {"policy": "serving"}
    assert logs.named(iter([asked])) == {}


def test_a_service_writes_json_when_it_is_told_to(tmp_path) -> None:
    config = tmp_path / "iterpo.toml"
    off = "".join(f'[{name}]\naddress = "127.0.0.1:0"\nmetrics_address = ""\n' for name in ("inference", "learner"))
    config.write_text(f'log_format = "json"\ndata_dir = "data"\n{off}')
    command = [sys.executable, "-m", "services.learner", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        process.terminate()
        rest = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(30) == 0
    assert (first["service"], first["message"]) == ("learner", "learner is serving on 127.0.0.1:0")
    assert rest[-1]["message"] == "learner has stopped"


def test_a_program_that_logs_already_is_left_alone() -> None:
    before = [(handler, handler.formatter) for handler in logging.root.handlers]
    logs.start("learner", "json")
    assert [(handler, handler.formatter) for handler in logging.root.handlers] == before
    assert before, "pytest has handlers of its own"
