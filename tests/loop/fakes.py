"""A world in memory for the loop: five ports of a few lines each, and faults that strike at chosen calls.

Everything but the learner survives a crash of the loop, as the other processes do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iterpo.errors import Unavailable, WrongState
from iterpo.policies import manifest
from iterpo.types import (
    Abstention,
    Completion,
    FeedbackEvent,
    FinishReason,
    GateDecision,
    Group,
    Label,
    Message,
    PolicyState,
    PolicyVersion,
    Preference,
    Prompt,
    Reward,
    Task,
)

RUN = "run"
SILENT = "silent"
"""A judge that says this has nothing to say yet."""


def prompt(index: int) -> Prompt:
    return Prompt(f"p{index}", (Message("user", f"Question {index}?"),))


REMOTE = ("sample", "record", "stream", "score", "load", "promote", "reject", "versions")
"""Only what is in another process can be away; at the rest, the learner itself dies."""


class Crash(Exception):
    """The learner's process is gone."""


@dataclass
class Faults:
    """Errors that strike once, at the n-th call of a port's method, before its effect or after (the answer is lost)."""

    planned: dict[tuple[str, int, str], Exception] = field(default_factory=dict)
    """(method, or "" for any; which call of it, from 1; before or after) -> what is raised."""
    calls: list[str] = field(default_factory=list)

    def strike(self, method: str, when: str) -> None:
        if when == "before":
            self.calls.append(method)
        for key in (("", len(self.calls), when), (method, self.calls.count(method), when)):
            if key in self.planned:
                error = self.planned.pop(key)
                raise error if method in REMOTE or not isinstance(error, Unavailable) else Crash()

    def around(self, port: Any) -> Any:
        return Faulty(port, self)

    def call(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*arguments: Any) -> Any:
            self.strike(name, "before")
            result = work(*arguments)
            self.strike(name, "after")
            return result

        return faulty

    def stream(self, work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """A stream that breaks `after` has given an event by then."""

        def faulty(*arguments: Any) -> Iterator[Any]:
            self.strike("stream", "before")
            for event in work(*arguments):
                yield event
                self.strike("stream", "after")

        return faulty


class Faulty:
    def __init__(self, port: Any, faults: Faults) -> None:
        self._port, self._faults = port, faults

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._port, name)
        return self._faults.stream(work) if name == "stream" else self._faults.call(name, work)


@dataclass
class Clock:
    """Seconds pass only while somebody waits for feedback."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class FakeGenerator:
    """Training groups are called g0, g1, ...; the text of a completion is its index in the group."""

    def __init__(self, publisher: FakePublisher) -> None:
        self.publisher, self.asked, self._groups, self._greedy = publisher, [], 0, 0

    def sample(self, prompts, n, settings, policy="serving"):
        version = self.publisher.resolve(policy)
        if version not in self.publisher.loaded:
            raise WrongState(f"Version {version} is not loaded.", "Load it.", "POLICY_NOT_LOADED")
        if settings.temperature == 0:
            self._greedy += 1
            names = [f"h{self._greedy}-{k}" for k in range(len(prompts))]
            return [
                [self._answer(p, name, i, version, 0.0) for i in range(n)]
                for p, name in zip(prompts, names, strict=True)
            ]
        self.asked.append([p.prompt_id for p in prompts])
        first, self._groups = self._groups, self._groups + len(prompts)
        return [[self._answer(p, f"g{first + k}", i, version) for i in range(n)] for k, p in enumerate(prompts)]

    def _answer(self, asked: Prompt, group_id: str, index: int, version: int, temperature: float = 1.0) -> Completion:
        return Completion(
            completion_id=f"{group_id}/{index}",
            prompt_id=asked.prompt_id,
            group_id=group_id,
            text=str(index),
            prompt_token_ids=(1,),
            token_ids=(2, 3),
            logprobs=(-0.5, -0.5),
            finish_reason=FinishReason.STOP,
            policy_version=version,
            policy_digest="",
            temperature=temperature,
        )


class FakeFeedback:
    """An append-only list. `judge` rewards a completion when the stream is read: a number, None, or SILENT."""

    def __init__(self, clock: Clock, judge: Callable[[Completion], float | str | None]) -> None:
        self.clock, self.judge = clock, judge
        self.events: list[FeedbackEvent] = []
        self._requests: dict[str, list[str]] = {}
        self._open: list[Completion] = []

    def record(self, run_id, labeler, groups, request_id, implicit_rewards=None):
        self.implicit_rewards = implicit_rewards
        if request_id not in self._requests:
            self._requests[request_id] = [self.append(group=g).event_id for g in groups]
            if labeler == "people":
                for g in groups:
                    self.append(task=Task(f"t-{g.group_id}", RUN, g.group_id, g.prompt, *g.completions[:2]))
            else:
                self._open += [c for g in groups for c in g.completions]
        return self._requests[request_id]

    def stream(self, run_id, cursor, idle_seconds):
        self.clock.now += idle_seconds
        self._label()
        new = [e for e in self.events if e.cursor > cursor]
        if not new:
            time.sleep(0.001)  # a pipeline's other threads get on meanwhile
        yield from new

    def append(self, **body) -> FeedbackEvent:
        cursor = len(self.events) + 1
        self.events.append(FeedbackEvent(cursor, f"e{cursor}", RUN, 0.0, **body))
        return self.events[-1]

    def answer(self, task: Task, outcome, annotator: str = "ann") -> None:
        """A person's label."""
        name = f"l-{task.task_id}-{annotator}"
        ids = task.first.completion_id, task.second.completion_id
        label = Label(name, task.task_id, task.group_id, *ids, outcome, annotator)
        self.append(label=label)
        p = 0.5 if label.p_first_wins is None else label.p_first_wins
        weight = float(label.p_first_wins is not None)
        self.append(preference=Preference(task.group_id, *ids, p, weight, task_id=task.task_id))

    def _label(self) -> None:
        still = []
        for completion in self._open:
            value = self.judge(completion)
            if value == SILENT:
                still.append(completion)
            elif value is None:
                self.append(abstention=Abstention(completion.completion_id, "rule", "TIMEOUT"))
            else:
                self.append(reward=Reward(completion.completion_id, float(value), "rule"))
        self._open = still

    @property
    def groups(self) -> list[Group]:
        return [e.group for e in self.events if e.group is not None]


@dataclass
class FakeLabeler:
    """One held-out reward for all prompts; `values` are given out one after the other, the last again and again."""

    values: list[float | None] = field(default_factory=lambda: [0.5])
    asked: list[str] = field(default_factory=list)

    def score(self, labeler, prompts, completions):
        self.asked.append(labeler)
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return [value] * len(prompts)


@dataclass
class FakePublisher:
    """Who serves. `bad` maps versions to the PolicyRejected that loading them raises."""

    serving: int = 0
    loaded: set[int] = field(default_factory=lambda: {0})
    bad: dict[int, Exception] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    known: set[int] = field(default_factory=lambda: {0})
    canaries: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """Version -> (for how many looks it is the canary, whether it passes)."""
    refused: dict[int, GateDecision] = field(default_factory=dict)
    run_heads: dict[str, int] = field(default_factory=dict)

    def heads(self):
        return dict(self.run_heads)

    def resolve(self, policy: str) -> int:
        if policy.startswith("run/"):
            return self.run_heads[policy.removeprefix("run/")]
        return self.serving if policy == "serving" else 0 if policy == "base" else int(policy)

    def load(self, version, digest):
        self.known.add(version)
        if version in self.bad:
            raise self.bad[version]
        self.loaded.add(version)
        self.history.append(f"load {version}")
        return PolicyVersion(version, digest, PolicyState.PROVED)

    def promote(self, version, decision: GateDecision, request_id, run=""):
        if version not in self.loaded:
            raise WrongState(f"Version {version} is not loaded.", "Load it.", "POLICY_NOT_LOADED")
        if run:
            self.history.append(f"promote {version} for {run}")
            self.run_heads[run] = version
            return 0.1
        self.history.append(f"promote {version}")
        if version not in self.canaries:
            self.serving = version
        return 0.1

    def reject(self, version, decision, request_id):
        self.loaded.discard(version)
        self.history.append(f"reject {version}")

    def versions(self, newest=0):
        states = {self.serving: PolicyState.SERVING} | dict.fromkeys(self.refused, PolicyState.REJECTED)
        for version, (looks, passes) in list(self.canaries.items()):
            if f"promote {version}" in self.history and version not in self.refused and version > self.serving:
                states[version] = PolicyState.CANARY
                self.canaries[version] = (looks - 1, passes)
                if looks <= 1 and passes:
                    self.serving = version
                elif looks <= 1:
                    self.refused[version] = GateDecision(False, ("users like it less",), {"canary_bad": 9.0})
        return [
            PolicyVersion(
                v, "", states.get(v, PolicyState.RETIRED), run_id=RUN if v else "", decision=self.refused.get(v)
            )
            for v in sorted(self.known)
        ]

    def restart(self) -> None:
        """Only the serving version is brought back, as the real one does."""
        self.loaded = {0, self.serving}


class FakeLearner:
    """Its weights are the ids of the completions it was trained on, in order."""

    def __init__(self) -> None:
        self.weights: list[str] = []
        self.updates = 0
        self.looked: list[tuple[str, list[str]]] = []
        """What was asked for, and the weights that it was asked of."""

    def update(self, selection):
        self.updates += 1
        self.weights = self.weights + [c.completion_id for c in selection.completions]
        return {"grad_norm": 1.0}

    def batch(self):
        return {"weights": list(self.weights)}

    def _look(self, name: str, state) -> None:
        self.looked.append((name, list(self.weights if state is None else state)))

    def kl(self, completions, state=None):
        self._look("kl", state)
        return 0.1

    def structure(self):
        return {"relative_norm": 0.01, "stable_rank": 2.0}

    def tokenised(self, group):
        return group

    def encode(self, example):
        """Under the prompt's own name."""
        name = example.prompt.prompt_id
        given = [
            Completion(f"{name}/{i}", name, name, a, (1,), (2,), (), FinishReason.STOP, 0, "")
            for i, a in enumerate(example.answers)
        ]
        return Group(name, example.prompt, tuple(given))

    def log_ratios(self, completions, state=None):
        self._look("log_ratios", state)
        return [float(c.text) for c in completions]

    def mixture(self, prompts, n, settings, share, version, state=None):
        made = FakeGenerator(FakePublisher(serving=version, loaded={version}))
        return [
            [replace(c, completion_id=f"rival-{c.completion_id}-{settings.seed}", text="rival") for c in group]
            for group in made.sample(prompts, n, settings, str(version))
        ]

    def snapshot(self):
        return list(self.weights)

    def restore(self, snapshot):
        self.weights = list(snapshot)

    def publish(self, root: Path, version, lineage, metrics):
        path = manifest.directory(root, version)
        path.mkdir(parents=True)
        (path / "weights.json").write_text(json.dumps(self.weights))
        return f"digest {version}"

    def save(self, directory: Path, state=None):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "weights.json").write_text(json.dumps(self.weights if state is None else state))

    @classmethod
    def at(cls, directory: Path):
        """With the weights of a checkpoint or of a policy directory."""
        found = cls()
        found.load(directory)
        return found

    def load(self, directory: Path):
        self.weights = json.loads((directory / "weights.json").read_text())
