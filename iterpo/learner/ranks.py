"""A learner of several processes on one machine: one leads, the others do their share of every update.

    leader (the learner service)                     follower: python -m iterpo.learner.ranks SETTINGS
      starts them                               -->    the same base, the same algorithm
      update: state and selection down a pipe   -->    the same state, and the update together (team.py)
      closes the pipe, or dies                  -->    ends

Followers remember nothing from one update to the next, so whatever else happens to the leader's weights (a refusal, a
checkpoint, another run's beginning) needs no word to them. What is told is JSON and safetensors: nothing is unpickled,
and nothing listens beyond this machine's own processes. Not implemented: several machines.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from safetensors.torch import load, save

from iterpo.algorithms import Algorithm, resolve
from iterpo.errors import IterpoError, Unavailable
from iterpo.learner.learner import LoraLearner
from iterpo.learner.policy_model import PolicyModel
from iterpo.learner.trainer import State, Trainer
from iterpo.response_sampling import Selection
from iterpo.run_config import RunConfig

SELECTION = TypeAdapter(Selection)
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
TIMEOUT = datetime.timedelta(minutes=30)
"""How long a rank waits for the others within an update."""
STARTING_SECONDS, ENDING_SECONDS = 300.0, 10.0


class LeadingLearner(LoraLearner):
    """Rank 0."""

    def __init__(self, base: Path, algorithm: Algorithm, config: RunConfig, followers: Followers) -> None:
        super().__init__(base, algorithm, config)
        self._followers = followers

    def _update(self, selection: Selection) -> dict[str, float]:
        """Raises Unavailable (RANK_LOST)."""
        try:
            self._followers.tell(self.trainer.state(), selection)
            return super()._update(selection)
        except (OSError, RuntimeError) as error:
            if self._followers.ended(1.0):  # its connections close a moment before it has ended
                raise self._followers.lost() from error
            raise


class Followers:
    """Ranks 1 to `ranks` - 1, started and ended with the context."""

    def __init__(self, base: Path, config: RunConfig, ranks: int, threads: int) -> None:
        """`threads`: of torch, on every rank."""
        self._ranks, self._threads = ranks, threads
        self._told = {"base": str(base), "config": config.model_dump(), "ranks": ranks, "threads": threads}
        self._processes: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def running(self) -> Iterator[Followers]:
        """Raises Unavailable (RANK_LOST) when one does not begin."""
        with tempfile.TemporaryDirectory(prefix="iterpo-ranks-") as folder:
            try:
                for rank in range(1, self._ranks):
                    told = json.dumps(self._told | {"meeting": folder, "rank": rank})
                    command = [sys.executable, "-m", "iterpo.learner.ranks", told]
                    # In a group of its own, so that Ctrl-C in a terminal is the leader's to answer.
                    self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0))
                self._await_all(Path(folder))
                join(Path(folder), 0, self._ranks, self._threads)
                yield self
            finally:
                self._end()

    def _await_all(self, meeting: Path) -> None:
        """Joining would wait for one that has ended already."""
        deadline = time.monotonic() + STARTING_SECONDS
        while len(list(meeting.glob("rank-*"))) < len(self._processes):
            if self.ended(0.05) or time.monotonic() > deadline:
                raise self.lost()

    def tell(self, state: State, selection: Selection) -> None:
        message = encoded(state, selection)
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(len(message).to_bytes(8, "big"))
            process.stdin.write(message)
            process.stdin.flush()

    def ended(self, seconds: float) -> dict[int, int]:
        """Ranks that have ended, or do within so long, with their exit codes."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        return {rank: p.returncode for rank, p in enumerate(self._processes, 1) if p.returncode is not None}

    def lost(self) -> Unavailable:
        """The others end of the first one's end: one that a signal ended is named first."""
        codes = sorted(self.ended(0.0).items(), key=lambda rank_and_code: rank_and_code[1])
        which = (
            f"Rank {codes[0][0]} of the learner has ended (exit code {codes[0][1]})" if codes else "A rank is silent"
        )
        return Unavailable(f"{which}.", "Read the learner's log for its reason, then resume the run.", "RANK_LOST")

    def _end(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self._processes:
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def join(meeting: Path, rank: int, ranks: int, threads: int) -> None:
    """Become one of a process group whose members meet in a folder."""
    for name, value in LOOPBACK.items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(threads)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    store = f"file://{meeting / 'store'}"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=ranks, timeout=TIMEOUT)


def encoded(state: State, selection: Selection) -> bytes:
    adapter, optimizer, critic = state
    moments = {f"{i}.{name}": t for i, each in optimizer["state"].items() for name, t in each.items()}
    parts = {"adapter": adapter, "moments": moments, "critic": critic or {}}
    tensors = {f"{part}/{name}": t.contiguous().cpu() for part, named in parts.items() for name, t in named.items()}
    told = {
        "selection": json.dumps(SELECTION.dump_python(selection, mode="json")),  # writes what is no number, too
        "groups": json.dumps(optimizer["param_groups"]),
    }
    return save(tensors, told)


def decoded(message: bytes) -> tuple[State, Selection]:
    header = json.loads(message[8 : 8 + int.from_bytes(message[:8], "little")])["__metadata__"]
    parts: dict[str, dict[str, torch.Tensor]] = {"adapter": {}, "moments": {}, "critic": {}}
    for key, tensor in load(message).items():
        part, name = key.split("/", 1)
        parts[part][name] = tensor
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in parts["moments"].items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    optimizer = {"state": moments, "param_groups": json.loads(header["groups"])}
    state = parts["adapter"], optimizer, parts["critic"] or None
    return state, SELECTION.validate_python(json.loads(header["selection"]))


def messages(pipe: BinaryIO) -> Iterator[bytes]:
    """Until it closes."""
    while length := pipe.read(8):
        yield pipe.read(int.from_bytes(length, "big"))


def follow(told: dict[str, Any]) -> None:
    meeting = Path(told["meeting"])
    (meeting / f"rank-{told['rank']}").touch()
    join(meeting, told["rank"], told["ranks"], told["threads"])
    config = RunConfig.model_validate(told["config"])
    model = PolicyModel(Path(told["base"]), config.lora, config.seed, config.micro_batch_tokens, config.dtype)
    trainer = Trainer(model, resolve(config), config)
    for message in messages(sys.stdin.buffer):
        state, selection = decoded(message)
        trainer.restore(state)
        with suppress(IterpoError):  # the leader has the same one, and says so
            trainer.update(selection)


if __name__ == "__main__":
    follow(json.loads(sys.argv[1]))
