"""Puts a run together from its record: model, clients, buffer, loop. Imports torch only when a run begins."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from iterpo.algorithms import Algorithm, resolve
from iterpo.buffer import GroupBuffer
from iterpo.clients.channel import connect_at, connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.labeling import LabelingClient
from iterpo.clients.spread import SpreadGenerator
from iterpo.config import Settings
from iterpo.embedded_model import model_directory
from iterpo.errors import InvalidConfig, WrongState
from iterpo.intake import usable
from iterpo.iterate import Loop
from iterpo.learner.batch_record import BatchFiles
from iterpo.learner.heldout_file import HeldoutFile
from iterpo.learner.ledger import Ledger, RunRecord
from iterpo.patience import Control
from iterpo.pipeline import make_loop
from iterpo.policies import manifest
from iterpo.policies.folder import PolicyFolder
from iterpo.ports import World
from iterpo.replay import Replay, groups_again
from iterpo.run_config import RunConfig
from iterpo.types import BASE_VERSION, BEGINS, GateDecision, Group, PolicyState, PolicyVersion, Progress
from iterpo.v1.inference_pb2 import GetModelResponse
from services.learner.limits import check_lengths

FIRST_CHECKPOINT, KEPT_CHECKPOINTS = "000000", 2
READ_IDLE_SECONDS = 1.0


class Checkpointed(Protocol):
    def save(self, directory: Path) -> None: ...

    def load(self, directory: Path) -> None: ...


class Assembly:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = PolicyFolder.of(settings.data_dir, settings.shared_policies)
        self._publishing = threading.Lock()
        self._loading = threading.Lock()
        """While transformers builds a model, every module of the process is made on its meta device."""
        # Without gRPC's own retries: the run waits for a service that is away, and says so.
        inference = connect_service(settings, "inference", "learner", retries=False)
        self._policies = PolicyClient(inference)
        self._generator = SpreadGenerator(
            InferenceClient(inference), self._policies, self._replica, settings.inference.max_num_seqs
        )
        self._labeling = LabelingClient(connect_service(settings, "labeling", "learner", retries=False))

    def _replica(self, address: str) -> InferenceClient:
        token = self._settings.token("learner")
        return InferenceClient(connect_at(address, self._settings, token, retries=False))

    @contextmanager
    def loop(self, record: RunRecord, ledger: Ledger, control: Control) -> Iterator[Loop]:
        """The run's loop, standing where its last checkpoint stood (or at the serving policy, for a new run). With the
        context ends what works for it in other processes."""
        config = RunConfig.model_validate(record.config)
        with self._learner(config) as learner:
            yield self._loop(record, config, learner, ledger, control)

    def _loop(self, record: RunRecord, config: RunConfig, learner, ledger: Ledger, control: Control) -> Loop:  # type: ignore[no-untyped-def]  # as below
        algorithm = resolve(config)
        model = control.patiently("asking inference for its model", self._generator.model)
        if model.dtype:
            learner.serve_as(model.dtype)
        checkpoints = self._settings.data_dir / "runs" / record.run_id / "checkpoints"
        progress = standing(record, ledger, checkpoints, learner, lambda: self._begin(record, model, learner, control))
        world = World(
            generator=self._generator,
            feedback=self._labeling,
            labeler=self._labeling,
            publisher=self._policies,
            learner=learner,
            policies=self._folder.root,
            share=self._folder.share,
            checkpoints=checkpoints,
            commit=partial(commit, ledger, checkpoints),
            publishing=self._publishing,
            note=partial(ledger.set_progress, record.run_id),
            keep=self.batches(record.run_id).write,
            show=self.heldout(record.run_id).show,
        )
        buffer = GroupBuffer(progress.cursor, ledger.consumed(record.run_id, progress.cursor))
        heldout = [e.prompt for e in record.heldout]
        replay = self._replay(config, algorithm, learner, ledger, control) if config.replay_of else None
        return make_loop(
            record.run_id, config, algorithm, record.examples, heldout, world, progress, buffer, control, replay
        )

    def batches(self, run_id: str) -> BatchFiles:
        """What the run was trained on, of late."""
        folder = self._settings.data_dir / "runs" / run_id / "batches"
        return BatchFiles(folder, self._settings.learner.kept_batches)

    def heldout(self, run_id: str) -> HeldoutFile:
        """The run's held-out answers, before and now."""
        return HeldoutFile(self._settings.data_dir / "runs" / run_id / "heldout.json")

    def began_at(self, record: RunRecord) -> int:
        """The version that the run began at: its first published version's parent, or the base."""
        root = self._folder.root
        for version in range(1, manifest.latest_version(root) + 1):
            found = manifest.peek(root, version)
            if found is not None and found.run_id == record.run_id:
                return found.parent
        return BASE_VERSION

    def _replay(self, config: RunConfig, algorithm: Algorithm, learner, ledger: Ledger, control: Control) -> Replay:  # type: ignore[no-untyped-def]  # as above
        """Reads the feedback of the run that is repeated, up to its end. Answers that came as texts are encoded, as in
        the run itself; its rule for the age of answers is not applied: whatever was learned is learned again."""
        of = config.replay_of
        assert of is not None

        def read() -> list[list[Group]]:
            events = self._labeling.stream(of.run_id, 0, READ_IDLE_SECONDS)
            last = of.first_iteration + config.iterations - 1
            return groups_again(events, ledger.iterations_of(of.run_id), of.first_iteration, last, of.without)

        groups = control.patiently("reading the run's feedback again", read)
        return Replay([[learner.tokenised(g) for g in part if usable(algorithm, g)] for part in groups])

    @contextmanager
    def _learner(self, config: RunConfig):  # type: ignore[no-untyped-def]  # LoraLearner; importing it loads torch
        import torch

        from iterpo.learner.learner import LoraLearner
        from iterpo.learner.ranks import Followers, LeadingLearner

        base = model_directory(self._settings.model.path, self._settings.data_dir)
        ranks, threads = self._settings.learner.ranks, self._settings.learner.threads
        if ranks > 1:
            check_ranks(ranks)
            each = threads or max(1, (os.cpu_count() or 1) // ranks)
            with Followers(base, config, ranks, each).running() as followers:
                yield LeadingLearner(base, resolve(config), config, followers)
            return
        if threads:
            torch.set_num_threads(threads)
        with self._loading:
            learner = LoraLearner(base, resolve(config), config)
        yield learner

    def _begin(self, record: RunRecord, model: GetModelResponse, learner, control: Control) -> Progress:  # type: ignore[no-untyped-def]  # as above
        """A new run goes on from whatever serves, so that its first samples are on-policy."""
        if model.base_digest != learner.base_digest:
            raise WrongState(
                f"Inference serves base {model.base_digest[:12]}, the learner has {learner.base_digest[:12]}.",
                "Give both the same model.path.",
                "BASE_MISMATCH",
            )
        max_tokens = record.config["max_tokens"]
        check_lengths(learner, record.examples, record.heldout, max_tokens, model.max_model_len_tokens)
        versions = control.patiently("asking inference for its policies", self._policies.versions)
        replay_of = record.config.get("replay_of")
        start = _version(versions, replay_of["version"]) if replay_of else _serving(versions)
        if start.version != BASE_VERSION:
            _, files = self._folder.read(start.version, start.digest)
            learner.start_from(files)
        if record.config.get("beside"):
            control.patiently("naming where the run begins", partial(self._stand_beside, record.run_id, start))
        return Progress(version=start.version)

    def _stand_beside(self, run_id: str, start: PolicyVersion) -> None:
        """Let `run/NAME` be the version that the run begins at, until its own first one passes the gate."""
        if start.version != BASE_VERSION:
            self._policies.load(start.version, start.digest)
        decision = GateDecision(True, (f"run {run_id} begins here",), {BEGINS: 1.0})
        self._policies.promote(start.version, decision, uuid.uuid4().hex, run_id)


def check_ranks(ranks: int) -> None:
    """Raises InvalidConfig (TOO_FEW_GPUS)."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < ranks:
        raise InvalidConfig(
            f"learner.ranks is {ranks}, and the machine has {torch.cuda.device_count()} GPUs.",
            "Set learner.ranks to their number, or make more of them visible (CUDA_VISIBLE_DEVICES).",
            "TOO_FEW_GPUS",
        )


def standing(
    record: RunRecord, ledger: Ledger, checkpoints: Path, learner: Checkpointed, begin: Callable[[], Progress]
) -> Progress:
    """Bring the learner to where the run stands. A new run begins, and its beginning is a checkpoint at once: were it
    to begin again after a crash, at whatever serves by then, it could begin at a candidate of its own and train on the
    same feedback twice."""
    if record.checkpoint is not None:
        learner.load(checkpoints / record.checkpoint)
        return record.progress
    progress = begin()
    learner.save(checkpoints / FIRST_CHECKPOINT)
    ledger.begin(record.run_id, progress, FIRST_CHECKPOINT)
    return progress


def commit(ledger: Ledger, checkpoints: Path, row, progress, checkpoint, consumed) -> None:  # type: ignore[no-untyped-def]  # as World.commit
    """The transaction, then tidy: older checkpoints go only once the new one is the run's."""
    import shutil

    ledger.commit(row, progress, checkpoint, consumed)
    for old in sorted(checkpoints.glob("[0-9]*"))[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old, ignore_errors=True)


def _version(versions: list[PolicyVersion], number: int) -> PolicyVersion:
    found = next((v for v in versions if v.version == number), None)
    if found is None:
        raise WrongState(
            f"Inference knows no version {number}, where the replay would start.",
            "Replay from a later iteration, or start a new run.",
            "POLICY_UNKNOWN",
        )
    return found


def _serving(versions: list[PolicyVersion]) -> PolicyVersion:
    return next(v for v in versions if v.state is PolicyState.SERVING)
