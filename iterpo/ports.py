"""What the loop needs from the world, as Protocols. `iterpo.clients` has them over gRPC, tests have fakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from iterpo.policies.gate import Judged
from iterpo.response_sampling import Selection
from iterpo.types import (
    Completion,
    Example,
    FeedbackEvent,
    GateDecision,
    Group,
    IterationRow,
    PolicyVersion,
    Progress,
    Prompt,
    SamplingSettings,
)


class Generator(Protocol):
    """Draws completions from a policy that inference serves."""

    def sample(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, policy: str = "serving"
    ) -> list[list[Completion]]:
        """[P][n] completions in the prompts' order. `policy` is an alias (`serving`, `candidate`, `previous`,
        `base`) or a version number in decimal."""
        ...


class Labeler(Protocol):
    """Scores completions here and now, storing nothing: what the gate uses on held-out prompts."""

    def score(self, labeler: str, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float | None]:
        """One reward a completion, in order; None where the labeler abstained."""
        ...


class FeedbackStore(Protocol):
    """The durable, append-only record of groups, rewards, tasks and labels."""

    def record(
        self,
        run_id: str,
        labeler: str,
        groups: Sequence[Group],
        request_id: str,
        implicit_rewards: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Store groups and have them labelled by `labeler`. Durable on return, idempotent by `request_id`.
        Returns the event ids of the groups. `implicit_rewards`: completion_id -> summed log-ratio of the policy to
        the base, nats; what people's task selection and label budget look at."""
        ...

    def stream(self, run_id: str, cursor: int, idle_seconds: float) -> Iterator[FeedbackEvent]:
        """Events of a run after `cursor`, in order; ends once nothing has come for `idle_seconds`."""
        ...


class PolicyPublisher(Protocol):
    """Brings a policy directory into serving."""

    def load(self, version: int, manifest_digest: str) -> PolicyVersion:
        """Verify, load and probe. Raises PolicyRejected with a stable reason when any proof fails."""
        ...

    def promote(self, version: int, decision: GateDecision, request_id: str, run: str = "") -> float:
        """Make a proved version the serving one; returns the swap's duration in milliseconds. With `run`, make it what
        `run/RUN` names, and leave what serves."""
        ...

    def reject(self, version: int, decision: GateDecision, request_id: str) -> None:
        """Record that the gate refused a proved version, and retire it."""
        ...

    def versions(self, newest: int = 0) -> list[PolicyVersion]:
        """Oldest first: `newest` of them, and all that serve, may serve or are a run's; 0: all."""
        ...

    def heads(self) -> dict[str, int]:
        """Run -> the version that `run/RUN` names, of the runs beside what serves."""
        ...


class Learner(Protocol):
    """Updates one adapter; `iterpo.learner.learner.LoraLearner` is the real one. `state` is a snapshot whose weights a
    call looks at instead of the current ones: such calls may come from other threads, and in the middle of an update
    (they are let in between two micro-batches)."""

    def update(self, selection: Selection) -> dict[str, float]:
        """Train on a selection; returns numbers for metrics and the gate."""
        ...

    def batch(self) -> dict[str, Any]:
        """What the last update was made of (`iterpo.learner.batch_record`)."""
        ...

    def kl(self, completions: Sequence[Completion], state: Any = None) -> float:
        """Nats a token to the base, averaged over the completions' tokens."""
        ...

    def structure(self) -> dict[str, float]:
        """`relative_norm` and `stable_rank` of the update to the base."""
        ...

    def log_ratios(self, completions: Sequence[Completion], state: Any = None) -> list[float]:
        """Summed log-ratio of the current policy to the base of each completion, nats."""
        ...

    def mixture(
        self,
        prompts: Sequence[Prompt],
        n: int,
        settings: SamplingSettings,
        share: float,
        version: int,
        state: Any = None,
    ) -> list[list[Completion]]:
        """[P][n] completions of the geometric mixture of the current policy, which is `version`, and the base."""
        ...

    def snapshot(self) -> Any:
        """Adapter and optimiser as they are, to be given back to `restore`."""
        ...

    def restore(self, snapshot: Any) -> None: ...

    def publish(self, root: Path, version: int, lineage: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        """Write a policy version under `root`; returns the digest of its manifest."""
        ...

    def save(self, directory: Path, state: Any = None) -> None:
        """Write a checkpoint, atomically."""
        ...

    def encode(self, example: Example) -> Group:
        """An example's given answers as a group of completions, for offline methods."""
        ...

    def tokenised(self, group: Group) -> Group:
        """The group with token ids for completions that came as texts; all others as they are."""
        ...


@dataclass(frozen=True)
class World:
    """Everything outside of the loop, behind ports."""

    generator: Generator
    feedback: FeedbackStore
    labeler: Labeler
    publisher: PolicyPublisher
    learner: Learner
    policies: Path
    """Where policy directories are published."""
    checkpoints: Path
    commit: Callable[[IterationRow, Progress, str, list[tuple[int, str]]], None]
    """Records an iteration: row, progress, checkpoint name, consumed events, in one transaction."""
    note: Callable[[Progress], None]
    """Records progress between iterations."""
    keep: Callable[[int, Callable[[], Mapping[str, Any]]], None] = lambda _iteration, _batch: None
    """Keeps the batch of an iteration for whoever wants to look at it."""
    show: Callable[[int, Sequence[Judged]], None] = lambda _version, _answers: None
    """Told of the held-out answers of what serves: as a run begins, and after each promotion."""
    share: Callable[[int, str], None] = lambda _version, _digest: None
    """Puts a published version where other machines find it. Raises Unavailable."""
    publishing: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while a version is numbered and written: runs side by side share the numbers."""
