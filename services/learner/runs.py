"""Runs: started, paused, resumed, stopped, each with a thread that does the work.

One at a time follows what serves; others, up to `learner.runs`, may learn beside it, each with a model's memory of its
own. What a run is doing is told to watchers as it changes; what it has done is in the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from iterpo.algorithms import Algorithm, find, resolve
from iterpo.errors import InvalidConfig, InvalidInput, IterpoError, NotFound, WrongState
from iterpo.intake import on_policy
from iterpo.learner.ledger import Ledger, RunSummary
from iterpo.patience import Control, RunStopped
from iterpo.run_config import ReplayOf, RunConfig
from iterpo.types import Example, IterationRow
from services.ids import check_run
from services.learner.assembly import Assembly
from services.learner.description import describe
from services.learner.limits import check_counts
from services.learner.metrics import LearnerMetrics
from services.learner.sinks import no_sinks
from services.logs import about
from services.torch_environment import give_back_memory

logger = logging.getLogger(__name__)

Sinks = Callable[[str, Mapping[str, Any]], AbstractContextManager[Callable[[IterationRow], None]]]
ACTIVE = ("RUNNING", "WAITING", "PAUSED")
MOST_ROWS = 1000
"""That are read, or sent, at once."""
MOST_EXAMPLES = 100_000


@dataclass(frozen=True)
class RunView:
    """A run as others see it."""

    record: RunSummary
    state: str
    status: str
    algorithm: str
    iterations: int


@dataclass
class Launched:
    """A run that this process works on, or did: its last state is told however it ended, as the ledger's disk may be
    full."""

    run_id: str
    beside: bool
    control: Control = field(default_factory=Control)
    state: str = "RUNNING"
    status: str = "loading the model"
    thread: threading.Thread | None = None
    active: bool = True
    """Not read off the state, which two threads write: the one that ends the run says it here, once."""


class RunManager:
    def __init__(
        self,
        ledger: Ledger,
        assembly: Assembly,
        metrics: LearnerMetrics,
        most: int = 1,
        sinks: Sinks = no_sinks,
    ) -> None:
        """`most` runs at the same time; `sinks` gives, while a run of that name and configuration works, what else
        takes its rows."""
        self._ledger, self._assembly, self._metrics, self._most = ledger, assembly, metrics, most
        self._sinks = sinks
        self._loop = asyncio.get_running_loop()
        self._listeners: set[asyncio.Event] = set()
        self._launched: dict[str, Launched] = {}
        self.draining = False
        for run_id in ledger.interrupt():
            logger.warning("run %s was interrupted; go on with: iterpo run resume %s", run_id, run_id)

    # Called from the event loop.

    def start(
        self,
        request_id: str,
        run_id: str,
        config: dict[str, Any],
        examples: Sequence[Example],
        heldout: Sequence[Example],
    ) -> RunView:
        content = f"start {fingerprint(run_id, config, examples, heldout)}"
        if not self._ledger.repeated(request_id, content):
            check_run(run_id)
            parsed, algorithm = parse(config)
            self._find_room(parsed.beside)
            check_examples(algorithm, examples, heldout)
            self._ledger.create(run_id, parsed.model_dump(), examples, heldout, (request_id, content))
            self._launch(run_id)
        return self.view(run_id)

    def replay(
        self, request_id: str, run_id: str, replay_id: str, first_iteration: int, without: tuple[str, ...]
    ) -> RunView:
        """Train again on what `run_id` was trained on since `first_iteration`.

        Raises InvalidInput NO_SUCH_ITERATION.
        """
        what = {"of": run_id, "from": first_iteration, "without": without}
        content = f"replay {fingerprint(replay_id, what, [], [])}"
        if not self._ledger.repeated(request_id, content):
            check_run(replay_id)
            record, rows = self._ledger.get(run_id), self._ledger.rows(run_id)
            self._find_room(_is_beside(record.config))
            if not 1 <= first_iteration <= len(rows):
                raise InvalidInput(
                    f"Run {run_id!r} has iterations 1 to {len(rows)}, and {first_iteration} was asked for.",
                    "Name one of them.",
                    "NO_SUCH_ITERATION",
                )
            before = (
                rows[first_iteration - 2].policy_version if first_iteration > 1 else self._assembly.began_at(record)
            )
            again = ReplayOf(run_id=run_id, first_iteration=first_iteration, version=before, without=without)
            config = RunConfig.model_validate(
                record.config | {"replay_of": again.model_dump(), "iterations": len(rows) - first_iteration + 1}
            )
            self._ledger.create(replay_id, config.model_dump(), record.examples, record.heldout, (request_id, content))
            self._launch(replay_id)
        return self.view(replay_id)

    def touched(self, event_ids: Sequence[str], annotator: str = "") -> list[tuple[str, int, int]]:
        """(run, iteration, promoted policy version or 0) of the iterations that were trained on one of the annotator's
        events. Replays that went through such an iteration, and were not made without him, are among them, each with
        the iteration that delivered its candidate: too many, if his labels were out of the preferences already."""
        found = self._ledger.touched(event_ids)
        repeated = [last for run_id in self._ledger.run_ids() if (last := self._repeated(run_id, found, annotator))]
        runs = {run_id for run_id, _ in found + repeated}
        promoted = {(r.run_id, r.iteration): r for run_id in runs for r in self._ledger.rows(run_id) if r.promoted}
        return [(*each, promoted[each].policy_version if each in promoted else 0) for each in sorted(found + repeated)]

    def _repeated(self, run_id: str, found: Sequence[tuple[str, int]], annotator: str) -> tuple[str, int] | None:
        """The run and its last iteration, if it is a finished replay of one of these iterations, with the annotator."""
        record = self._ledger.summary(run_id)
        of, iterations = record.replay_of, record.config["iterations"]
        if of is None or annotator in of.without or record.progress.iteration < iterations:
            return None
        again = range(of.first_iteration, of.first_iteration + iterations)
        return (run_id, iterations) if any(run == of.run_id and n in again for run, n in found) else None

    def pause(self, request_id: str, run_id: str) -> RunView:
        if not self._ledger.repeated(request_id, f"pause {run_id}"):
            run = self._require_active(run_id)
            self._ledger.remember(request_id, f"pause {run_id}")
            run.control.pause()
            self._tell(run, "PAUSED", "pausing after what is in progress")
        return self.view(run_id)

    def resume(self, request_id: str, run_id: str) -> RunView:
        """Lift a pause, or go on from the last checkpoint."""
        record = self._ledger.summary(run_id)
        if self._ledger.repeated(request_id, f"resume {run_id}"):
            return self.view(run_id)
        if run_id in self._launched and self._launched[run_id].active:
            run = self._launched[run_id]
            run.control.resume()
            self._tell(run, "RUNNING", "resumed")
        else:
            if record.state == "FINISHED":
                raise WrongState(f"Run {run_id!r} is finished.", "Start a new run: it begins at the serving policy.")
            self._find_room(_is_beside(record.config))
            self._launch(run_id)
        self._ledger.remember(request_id, f"resume {run_id}")
        return self.view(run_id)

    def stop(self, request_id: str, run_id: str) -> RunView:
        if not self._ledger.repeated(request_id, f"stop {run_id}"):
            run = self._require_active(run_id)
            self._ledger.remember(request_id, f"stop {run_id}")
            self._tell(run, "RUNNING", "stopping after what is in progress")
            run.control.stop()
        return self.view(run_id)

    def view(self, run_id: str) -> RunView:
        record = self._ledger.summary(run_id)
        launched = self._launched.get(run_id)
        state, status = (launched.state, launched.status) if launched else (record.state, record.status)
        return RunView(record, state, status, record.config["algorithm"], record.config["iterations"])

    def views(self) -> list[RunView]:
        return [self.view(run_id) for run_id in self._ledger.run_ids()]

    def rows(self, run_id: str, after: int = 0, most: int = 0) -> list[IterationRow]:
        """Of later iterations than `after`; evenly thinned to some `most`, the last one among them. 0: the first
        MOST_ROWS."""
        return self._ledger.rows(run_id, after, most, -1 if most else MOST_ROWS)

    def batch(self, run_id: str, iteration: int = 0) -> tuple[dict[str, Any], list[int]]:
        """(what an iteration was trained on, iterations whose batches are kept); 0: the latest. Raises NotFound."""
        made = self._ledger.summary(run_id).progress.iteration
        if iteration > made:
            raise NotFound(
                f"Run {run_id!r} has made {made} iterations; there is no iteration {iteration} yet.",
                "Name an earlier one, or none for the latest.",
                "ITERATION_UNKNOWN",
            )
        files = self._assembly.batches(run_id)
        kept = files.iterations()
        return files.read(iteration or (kept[-1] if kept else 0)), kept

    def describe(self, run_id: str) -> dict[str, Any]:
        return describe(self._ledger.summary(run_id), self._assembly.heldout(run_id))

    def explain(self, run_id: str, iteration: int, method: str, settings: Mapping[str, str]) -> dict[str, Any]:
        """As `iterpo.explain.explain`, of what an iteration was trained on: by its own method (the default) with the
        run's parameters, or by another one."""
        from iterpo.explain import explain

        record, _ = self.batch(run_id, iteration)
        own = not method or find(method).name == record["method"]
        return explain(
            method or record["method"], record["batch"], (record["settings"] if own else {}) | dict(settings)
        )

    async def changed(self, event: asyncio.Event, timeout_seconds: float) -> None:
        """Wait until something may have changed; `event` was given by `listen`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return
        event.clear()

    def listen(self) -> asyncio.Event:
        event = asyncio.Event()
        self._listeners.add(event)
        return event

    def forget(self, event: asyncio.Event) -> None:
        self._listeners.discard(event)

    async def drain(self) -> None:
        """End the watchers' streams, and stop every run at its next safe point; they can be resumed."""
        self.draining = True
        self._wake()
        threads = [run.thread for run in self._active() if run.thread is not None]
        for run in self._active():
            run.control.stop()
        await asyncio.gather(*(asyncio.to_thread(thread.join, 5.0) for thread in threads))

    def _launch(self, run_id: str) -> None:
        self._ledger.set_state(run_id, "RUNNING", "starting")
        config = self._ledger.summary(run_id).config
        run = self._launched[run_id] = Launched(run_id, _is_beside(config))
        run.control = Control(lambda text, waiting: self._tell(run, "WAITING" if waiting else "RUNNING", text))
        parsed = RunConfig.model_validate(config)
        self._metrics.begin(run_id, parsed.ahead, parsed.gate.max_kl)
        self._tell(run, run.state, run.status)
        run.thread = threading.Thread(target=self._work, args=(run,), name=f"run {run_id}", daemon=True)
        run.thread.start()

    # Called from a run's thread.

    def _work(self, run: Launched) -> None:
        with about(run=run.run_id), ExitStack() as when_finished:
            logger.info("the run begins, or goes on")
            state, status = self._outcome(run, when_finished)
            give_back_memory()  # before the next run may begin: two models would be there at once
            self._finish(run, state, status)

    def _outcome(self, run: Launched, when_finished: ExitStack) -> tuple[str, str]:
        """Work until the run ends, however it does; with this call's variables goes the model. Trackers get their time
        for what is left `when_finished`."""
        try:
            record = self._ledger.get(run.run_id)
            sink = when_finished.enter_context(self._sinks(run.run_id, record.config))
            with self._assembly.loop(record, self._ledger, run.control) as loop:
                for row in loop.iterations():
                    self._metrics.observe(row)
                    sink(row)
                    gate = "promoted" if row.promoted else "refused" if row.decision else "no update"
                    logger.info("iteration %d, %s, %.1f s", row.iteration, gate, row.seconds)
                    self._tell(run, "RUNNING", f"iteration {row.iteration} is done")
        except RunStopped:
            return "STOPPED", f"stopped; go on with: iterpo run resume {run.run_id}"
        except IterpoError as error:
            logger.error("run %s failed: %s", run.run_id, error)
            return "FAILED", str(error)
        except Exception as error:  # a bug in a run must end as a state that people see, not as a silent dead thread
            logger.exception("run %s failed", run.run_id)
            return "FAILED", f"{type(error).__name__}: {error} (traceback in the learner's log)"
        return "FINISHED", "finished"

    def _finish(self, run: Launched, state: str, status: str) -> None:
        try:
            self._ledger.set_state(run.run_id, state, status)
        except IterpoError as error:
            logger.error("run %s is %s, which could not be recorded: %s", run.run_id, state, error)
        finally:
            run.active = False
            logger.info("the run has ended: %s", status)
            self._tell(run, state, status)
            self._metrics.end(run.run_id, state)

    def _tell(self, run: Launched, state: str, status: str) -> None:
        if not run.active and state in ACTIVE:
            return  # it has ended meanwhile
        run.state, run.status = "PAUSED" if run.control.paused and state in ACTIVE else state, status
        self._metrics.waiting.labels(run.run_id).set(state == "WAITING")
        self._metrics.paused.labels(run.run_id).set(run.state == "PAUSED")
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._listeners:
            event.set()

    def _active(self) -> list[Launched]:
        return [run for run in self._launched.values() if run.active]

    def _require_active(self, run_id: str) -> Launched:
        run = self._launched.get(run_id)
        if run is None or not run.active:
            state = self._ledger.summary(run_id).state.lower()
            raise WrongState(f"Run {run_id!r} is {state}, not running.", "See: iterpo run status.", "RUN_NOT_ACTIVE")
        return run

    def _find_room(self, beside: bool) -> None:
        """Raises WrongState (RUN_ACTIVE)."""
        active = self._active()
        if len(active) >= self._most:
            raise WrongState(
                f"Run {active[0].run_id!r} is active, and this learner does {self._most} at a time.",
                f"Stop it first: iterpo run stop {active[0].run_id}. Or raise learner.runs, for runs side by side.",
                "RUN_ACTIVE",
            )
        leading = [run.run_id for run in active if not run.beside]
        if leading and not beside:
            raise WrongState(
                f"Run {leading[0]!r} is active, and what serves can follow one run only.",
                f"Stop it first: iterpo run stop {leading[0]}. Or set run.beside = true.",
                "RUN_ACTIVE",
            )


def _is_beside(config: Mapping[str, Any]) -> bool:
    return bool(config.get("beside"))


def parse(config: dict[str, Any]) -> tuple[RunConfig, Algorithm]:
    """Raises InvalidConfig for unknown keys, wrong types and impossible triples."""
    try:
        parsed = RunConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InvalidConfig(f"run.{key}: {first['msg']}.", "Mend the [run] section of iterpo.toml.") from error
    algorithm = resolve(parsed)
    measure = getattr(algorithm.prompt_sampling, "measure", "reward")
    if parsed.labeler == "people" and algorithm.prompt_sampling.remembers and measure != "entropy":
        raise InvalidConfig(
            f"Prompt sampling {algorithm.prompt_sampling.name!r} looks at rewards; people's are a half on average.",
            'Use uncertainty with measure = "entropy", or uniform.',
            "IMPOSSIBLE_TRIPLE",
        )
    oldest = parsed.ahead + 1  # the learner may stand one candidate above what serves
    if parsed.ahead and on_policy(algorithm) and oldest > parsed.max_policy_age:
        raise InvalidConfig(
            f"With run.ahead = {parsed.ahead} answers may be {oldest} versions old when they are used, and "
            f"{parsed.max_policy_age} are allowed (run.max_policy_age).",
            "Lower run.ahead, or raise run.max_policy_age.",
            "AHEAD_TOO_FAR",
        )
    return parsed, algorithm


def fingerprint(run_id: str, config: dict[str, Any], examples: Sequence[Example], heldout: Sequence[Example]) -> str:
    """SHA-256 of a start's content."""
    data = json.dumps([run_id, config, *([asdict(e) for e in part] for part in (examples, heldout))], sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def check_examples(algorithm: Algorithm, examples: Sequence[Example], heldout: Sequence[Example]) -> None:
    if not examples or not heldout or len(examples) > MOST_EXAMPLES:
        raise InvalidConfig(
            f"The run has {len(examples)} prompts and {len(heldout)} held-out ones.",
            f"Give it 1 to {MOST_EXAMPLES} of both (run.prompts, run.heldout).",
            "NO_PROMPTS",
        )
    check_counts(algorithm, heldout)
    sampler = algorithm.response_sampling
    if not sampler.offline:
        return
    wanted = 2 if "pairs" in sampler.provides else 1
    wrong = [e.prompt.prompt_id for e in examples if len(e.answers) != wanted]
    if wrong:
        form = "prompt/chosen/rejected" if wanted == 2 else "prompt/completion"
        raise InvalidConfig(
            f"Algorithm {algorithm.name!r} learns from given answers, and {len(wrong)} examples lack them.",
            f"Name a {form} file in run.pairs.",
            "NO_ANSWERS",
        )
