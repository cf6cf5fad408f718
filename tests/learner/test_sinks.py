"""A run's rows in each tracker, written by its real client and read back by it."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iterpo.errors import InvalidConfig
from iterpo.types import IterationRow
from services.learner import sinks
from services.learner.sinks import check, flat, numbers, open_sinks

CONFIG = {"algorithm": "grpo", "kl": {"beta": 0.5}}
ROW = IterationRow(
    run_id="first",
    iteration=1,
    policy_version=1,
    promoted=True,
    proved=True,
    train_reward=0.25,
    heldout_reward=float("nan"),
    kl=0.125,
    swap_ms=1.0,
    load_ms=2.0,
    tokens_per_second=100.0,
    seconds=3.0,
    metrics={"grad_norm": 0.5},
    decision=None,
)
KL = [0.125, 0.25, 0.375]


def write_a_run(name: str, folder: Path, iterations: tuple[int, ...] = (1, 2, 3)) -> None:
    with open_sinks([name], folder, "first", CONFIG) as sink:
        for iteration in iterations:
            sink(replace(ROW, iteration=iteration, kl=KL[iteration - 1]))


def test_what_is_no_number_is_not_sent() -> None:
    found = numbers(ROW)
    assert "heldout_reward" not in found
    assert (found["kl_nats"], found["promoted"], found["grad_norm"]) == (0.125, 1.0, 0.5)


def test_a_nested_configuration_is_told_by_dotted_names() -> None:
    assert flat(CONFIG) == {"algorithm": "grpo", "kl.beta": 0.5}


def test_tensorboard_draws_the_runs_rows(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_a_run("tensorboard", tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "runs" / "first" / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("kl_nats")] == list(enumerate(KL, 1))
    [text] = events.Tensors("configuration/text_summary")
    assert b"kl.beta = 0.5" in text.tensor_proto.string_val[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_mlflow_has_one_run_also_when_the_run_went_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    write_a_run("mlflow", tmp_path, (1, 2))
    write_a_run("mlflow", tmp_path, (3,))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("iterpo")
    [run] = client.search_runs([experiment.experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "kl_nats")] == list(enumerate(KL, 1))
    assert (run.data.params["kl.beta"], run.info.status, run.info.run_name) == ("0.5", "FINISHED", "first")


def test_trackio_has_one_run_also_when_the_run_went_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    write_a_run("trackio", tmp_path, (1, 2))
    write_a_run("trackio", tmp_path, (3,))
    [run] = storage.SQLiteStorage.get_runs("iterpo")
    logged = storage.SQLiteStorage.get_logs("iterpo", run)
    assert [(row["step"], row["kl_nats"]) for row in logged] == list(enumerate(KL, 1))


def test_weights_and_biases_writes_each_run_to_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, as on a machine without its server: `wandb sync` would send the file."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with (
        open_sinks(["wandb"], tmp_path, "first", CONFIG) as first,
        open_sinks(["wandb"], tmp_path, "second", CONFIG) as second,
    ):
        first(ROW)
        second(replace(ROW, kl=0.5))
    files = {path.stem.split("-")[1]: path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    assert set(files) == {"first", "second"}
    assert all(b"tokens_per_second" in written and b"beta" in written for written in files.values())
    assert b"0.125" in files["first"]
    assert b"0.125" not in files["second"]


class Broken:
    def __init__(self, run_id: str, config: Any, data_dir: Path) -> None:
        self.rows = 0

    def write(self, step: int, numbers: Any) -> None:
        self.rows += 1
        raise ConnectionError(f"row {self.rows}")

    def close(self) -> None:
        raise AssertionError("closed after it was given up")


def test_a_sink_that_fails_is_given_up_once_and_the_others_get_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []

    class Keeps(Broken):
        def write(self, step: int, numbers: Any) -> None:
            got.append(step)

        def close(self) -> None:
            got.append(-1)

    monkeypatch.setattr(sinks, "SINKS", {"broken": ("json", Broken), "keeps": ("json", Keeps)})
    with caplog.at_level(logging.WARNING), open_sinks(["broken", "keeps"], tmp_path, "first", CONFIG) as sink:
        for iteration in (1, 2, 3):
            sink(replace(ROW, iteration=iteration))
    assert got == [1, 2, 3, -1]
    assert [record.message for record in caplog.records] == [
        "broken takes no more rows of run first: ConnectionError: row 1"
    ]


def test_a_sink_that_hangs_holds_up_neither_rows_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()

    class Hangs(Broken):
        def write(self, step: int, numbers: Any) -> None:
            released.wait(30)

    monkeypatch.setattr(sinks, "SINKS", {"hangs": ("json", Hangs)})
    monkeypatch.setattr(sinks, "END_SECONDS", 0.05)
    with caplog.at_level(logging.WARNING), open_sinks(["hangs"], tmp_path, "first", CONFIG) as sink:
        for _ in range(100):
            sink(ROW)
    assert "are still being sent to hangs" in caplog.text
    released.set()


def test_a_sink_whose_client_is_missing_is_said_before_the_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SINKS", {"wandb": ("no_such_module", Broken)})
    with pytest.raises(InvalidConfig, match="not installed") as refused:
        check(["wandb"])
    assert "pip install 'iterpo[wandb]'" in refused.value.fix


@pytest.mark.parametrize(("variable", "project"), [("", "iterpo"), ("mine", None)])
def test_a_project_that_is_named_in_weights_and_biases_own_variable_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, project: str | None
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", variable)
    told: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **given: told.update(given))
    sinks.WeightsAndBiases("first", CONFIG, tmp_path)
    assert told["project"] == project


def test_without_a_candidate_there_is_no_kl_to_send() -> None:
    assert "kl_nats" in sinks.numbers(ROW)
    assert not {"kl_nats", "swap_seconds", "load_seconds"} & sinks.numbers(replace(ROW, proved=False)).keys()
