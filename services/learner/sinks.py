"""A run's numbers, sent to the trackers that a team has already: TensorBoard, Weights & Biases, MLflow, trackio.

Each is its own client, configured the way that client is (`WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `TRACKIO_DIR`, ...);
none is installed by default (`pip install iterpo[tensorboard]` and so on). A row of the run is a step, whose numbers
have the names that `iterpo run status --json` gives them. Prompts, answers and labels are not sent.

Sinks work in a thread of their own: one that is slow holds no update up, and one that fails is given up for this run
and said in the log. Rows that a run makes again after a crash are sent again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from iterpo.errors import InvalidConfig
from iterpo.types import IterationRow
from services.logs import about

logger = logging.getLogger(__name__)

PROJECT = "iterpo"
END_SECONDS = 60.0
"""How long a run's end waits for what is still to be sent."""


class Sink(Protocol):
    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in runs/RUN/tensorboard of data_dir: `tensorboard --logdir DATA_DIR/runs`."""

    def __init__(self, run_id: str, config: Mapping[str, Any], data_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(data_dir / "runs" / run_id / "tensorboard"))
        lines = [f"    {name} = {value}" for name, value in sorted(flat(config).items())]  # indented: verbatim
        self._writer.add_text("configuration", "\n".join(lines))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `iterpo`, or WANDB_PROJECT; goes on under the same id when the run does."""

    def __init__(self, run_id: str, config: Mapping[str, Any], data_dir: Path) -> None:
        import wandb

        # Named here, a project overrides the variable, which wandb.init reads by itself.
        project = None if os.environ.get("WANDB_PROJECT") else PROJECT
        name = unique(run_id, data_dir)
        # create_new: runs side by side are several in this process.
        self._run: Any = wandb.init(
            project=project,
            name=run_id,
            id=name,
            resume="allow",
            config=dict(config),
            dir=str(data_dir),
            reinit="create_new",
            settings=wandb.Settings(silent=True),
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of the experiment `iterpo`, at MLFLOW_TRACKING_URI or MLflow's default; goes on when the run does."""

    def __init__(self, run_id: str, config: Mapping[str, Any], data_dir: Path) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        name = unique(run_id, data_dir)
        [*before] = self._client.search_runs([experiment], f"tags.`iterpo.run` = '{name}'", max_results=1)
        if before:
            self._id = before[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run_id, tags={"iterpo.run": name}).info.run_id
        self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in flat(config).items()])

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._id, [self._metric(name, value, now, step) for name, value in numbers.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)


class Trackio:
    """A run of the project `iterpo`, kept where trackio keeps its runs: `trackio show --project iterpo`."""

    def __init__(self, run_id: str, config: Mapping[str, Any], data_dir: Path) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=PROJECT, name=unique(run_id, data_dir), config=dict(config), resume="allow", embed=False
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


SINKS: Mapping[str, tuple[str, Callable[[str, Mapping[str, Any], Path], Sink]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", Mlflow),
    "trackio": ("trackio", Trackio),
}
"""Name in learner.sinks -> (module that must be there, what makes one for a run)."""


def check(names: Sequence[str]) -> None:
    """Raises InvalidConfig (SINK_NOT_INSTALLED)."""
    for name in names:
        if importlib.util.find_spec(SINKS[name][0]) is None:
            raise InvalidConfig(
                f"learner.sinks names {name}, and its client is not installed.",
                f"pip install 'iterpo[{name}]', or leave it out.",
                "SINK_NOT_INSTALLED",
            )


@contextmanager
def no_sinks(_run_id: str, _config: Mapping[str, Any]) -> Iterator[Callable[[IterationRow], None]]:
    yield lambda _row: None


@contextmanager
def open_sinks(
    names: Sequence[str], data_dir: Path, run_id: str, config: Mapping[str, Any]
) -> Iterator[Callable[[IterationRow], None]]:
    """Gives what takes a run's rows; on leaving what is left is sent, within END_SECONDS."""
    rows: queue.SimpleQueue[IterationRow | None] = queue.SimpleQueue()

    def work() -> None:
        with about(run=run_id):
            send(names, rows, run_id, config, data_dir)

    thread = threading.Thread(target=work, name=f"sinks of {run_id}", daemon=True)
    thread.start()
    try:
        yield rows.put
    finally:
        rows.put(None)
        thread.join(END_SECONDS)
        if thread.is_alive():
            logger.warning("rows of run %s are still being sent to %s; the run has ended", run_id, ", ".join(names))


def send(
    names: Sequence[str],
    rows: queue.SimpleQueue[IterationRow | None],
    run_id: str,
    config: Mapping[str, Any],
    data_dir: Path,
) -> None:
    """Every row to every sink, in order, until there is None. A sink that fails gets no more."""
    sinks: dict[str, Sink] = {}
    for name in names:
        with giving_up(name, run_id):
            sinks[name] = SINKS[name][1](run_id, config, data_dir)
    while (row := rows.get()) is not None:
        found = numbers(row)
        for name, sink in list(sinks.items()):
            del sinks[name]
            with giving_up(name, run_id):
                sink.write(row.iteration, found)
                sinks[name] = sink
    for name, sink in sinks.items():
        with giving_up(name, run_id):
            sink.close()


@contextmanager
def giving_up(name: str, run_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # four clients, each with errors of its own; a run ends by none of them
        logger.warning("%s takes no more rows of run %s: %s: %s", name, run_id, type(error).__name__, error)


def numbers(row: IterationRow) -> dict[str, float]:
    """What a tracker draws: everything of a row that is a number, and finite."""
    of_candidate = {}
    if row.proved:
        of_candidate = {"kl_nats": row.kl, "swap_seconds": row.swap_ms / 1000, "load_seconds": row.load_ms / 1000}
    found = {
        "train_reward": row.train_reward,
        "heldout_reward": row.heldout_reward,
        "policy_version": float(row.policy_version),
        "promoted": float(row.promoted),
        "proved": float(row.proved),
        "tokens_per_second": row.tokens_per_second,
        "seconds": row.seconds,
        **of_candidate,
        **row.metrics,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"kl": {"beta": 0}}` as `{"kl.beta": 0}`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def unique(run_id: str, data_dir: Path) -> str:
    """Trackers hold the runs of many machines; a run's name is its own in its data_dir only."""
    return f"{run_id}-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}"
