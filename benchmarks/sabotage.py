"""What the drills break, and how; benchmarks/drill.py runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import descendants
from benchmarks.open_gate import ANYTHING
from benchmarks.people import make_gold, one_friendly_sentence
from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient
from iterpo.clients.labeling import LabelingClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings
from iterpo.demo.traffic import Traffic
from iterpo.errors import InvalidConfig
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.supervisor import Supervisor
from iterpo.types import Lease, Outcome
from services.instruments import usable_bytes

RUN_ID = "drill"
HEALTHY_ITERATIONS = 2
ENDLESS = 10_000
SMALL: Mapping[str, Any] = {
    "algorithm": "grpo",
    "labeler": "e",
    "iterations": ENDLESS,
    "prompts_per_iteration": 2,
    "response_sampling": {"size": 4},
    "kl": {"beta": 0.0},
    "learning_rate": 1e-4,
    "max_tokens": 12,
    "gate": ANYTHING,
}
LABELER_E: Mapping[str, str] = {
    "labelers.e": 'kind = "verifier"\nfunction = "benchmarks.slow_rule:fast_share_of_e"',
}
SLOW_SHARE, PERIOD_SECONDS = 0.005, 2.0
"""Of the time, that the slow engine runs: once in every period."""
DISK_MIB, DISK_LEFT = 1024, 0.06
ANNOTATORS, USERS = 4, 4
THINKING_SECONDS = 0.5


@dataclass(frozen=True)
class Stack:
    """What runs while a drill goes on."""

    settings: Settings
    services: Supervisor
    home: Path

    @property
    def learner(self) -> LearnerClient:
        return LearnerClient(connect_service(self.settings, "learner"))

    def start(self, run_id: str = RUN_ID, **settings: Any) -> None:
        examples, heldout = (read(demo_file(f"{name}.jsonl")) for name in ("prompts", "heldout"))
        self.learner.start(run_id, {**SMALL, **settings}, examples[:8], heldout[:4])

    def end(self) -> None:
        self.learner.stop(RUN_ID)
        for _ in self.learner.watch(RUN_ID):  # ends with the run
            continue

    def iterations(self) -> int:
        return int(self.learner.get(RUN_ID, most_rows=1).run.iteration)


Sabotage = Callable[[Stack], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Drill:
    name: str
    does: str
    family: str
    alerts: frozenset[str]
    """Any of these is the right one."""
    window: float
    """Seconds from the sabotage: the rule's own windows, `faster` times shorter, and a minute for what leads there."""
    sabotage: Sabotage
    """Within its context the thing is broken; on leaving it is mended, as far as shutting down needs that."""
    prepare: Callable[[Stack], None] = Stack.start
    is_healthy: Callable[[Stack], bool] = lambda stack: stack.iterations() >= HEALTHY_ITERATIONS
    settings: Callable[[], Mapping[str, str]] = lambda: LABELER_E
    """Lines of a section of iterpo.toml, by its name; called before the services start."""
    disk: Callable[[Path], AbstractContextManager[Path]] = nullcontext
    """Gives the home, which must not be there yet."""
    faster: float = 1


class Answering(BaseHTTPRequestHandler):
    """A labeler elsewhere, as a team has one: POST an answer, read its reward."""

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = str(text.count("e") / max(1, len(text))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the base class's name for it)
        """Nothing: it is asked for every answer."""


class RemoteLabeler:
    """Comes up before its drill's services, which must know its address, and goes down in it."""

    def start(self) -> dict[str, str]:
        """The section of iterpo.toml that names it."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        lines = 'kind = "verifier"\nfunction = "benchmarks.drill_rules:remote"\n'
        return {"labelers.remote": f'{lines}options = {{url = "{url}"}}'}

    @contextmanager
    def down(self, _stack: Stack) -> Iterator[None]:
        self._server.shutdown()
        self._server.server_close()
        yield


class Crowd:
    """Annotators at work on the run's pairs and on gold, who understand the guideline until they do not."""

    def __init__(self) -> None:
        self._wrong, self._stop = threading.Event(), threading.Event()

    def prepare(self, stack: Stack) -> None:
        make_gold(LabelingClient(connect_service(stack.settings, "labeling")))
        for number in range(ANNOTATORS):
            name = f"person-{number}"
            threading.Thread(target=self._annotate, args=(stack.settings, name), daemon=True).start()
        judged = {**ANYTHING, "labeler": "one_friendly_sentence"}
        stack.start(algorithm="online_dpo", labeler="people", response_sampling={"size": 2}, gate=judged)

    def _annotate(self, settings: Settings, name: str) -> None:
        with connect_service(settings, "labeling", "annotator") as channel, Annotation(channel, name) as annotation:
            while not self._stop.is_set():
                if (lease := annotation.next(timeout=0.5)) is not None:
                    annotation.label(lease, self._preferred(lease), duration_seconds=THINKING_SECONDS)
                    time.sleep(THINKING_SECONDS)

    def _preferred(self, lease: Lease) -> Outcome:
        """Never a tie: what they are not asked about decides nothing here."""
        first, second = (one_friendly_sentence(lease.task.prompt, c) for c in (lease.task.first, lease.task.second))
        better = (first >= second) != self._wrong.is_set()
        return Outcome.FIRST if better != lease.swapped else Outcome.SECOND

    @contextmanager
    def wrong(self, _stack: Stack) -> Iterator[None]:
        self._wrong.set()
        try:
            yield
        finally:
            self._stop.set()


class Users:
    """Applications that ask all the time, beside a run; and their engine."""

    def __init__(self) -> None:
        self._asking: list[Traffic] = []

    def prepare(self, stack: Stack) -> None:
        prompts = [example.prompt for example in read(demo_file("prompts.jsonl"))]
        for _ in range(USERS):
            traffic = Traffic(InferenceClient(connect_service(stack.settings, "inference")), prompts)
            self._asking.append(traffic.__enter__())
        stack.start()

    @contextmanager
    def wait_for_a_slow_engine(self, stack: Stack) -> Iterator[None]:
        try:
            with slow_engine(stack):
                yield
        finally:
            for traffic in self._asking:
                traffic.__exit__(None, None, None)


@contextmanager
def slow_engine(stack: Stack) -> Iterator[None]:
    """The engine's processes get SLOW_SHARE of the time, as on a machine whose cores others took."""
    ended = threading.Event()
    engine = descendants(stack.services.pid("inference"))

    def hold_up() -> None:
        while not ended.is_set():
            send(engine, signal.SIGSTOP)
            ended.wait(PERIOD_SECONDS * (1 - SLOW_SHARE))
            send(engine, signal.SIGCONT)
            time.sleep(PERIOD_SECONDS * SLOW_SHARE)

    holding = threading.Thread(target=hold_up, daemon=True)
    holding.start()
    try:
        yield
    finally:
        ended.set()
        holding.join(2 * PERIOD_SECONDS)
        send(engine, signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it has ended meanwhile


@contextmanager
def hanging_learner(stack: Stack) -> Iterator[None]:
    """Stopped, not ended: `iterpo up` would start it anew within a second."""
    pid = stack.services.pid("learner")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def rewarded_for_the_wrong_thing(stack: Stack) -> Iterator[None]:
    """From here on the labeler likes nothing but the letter e, at a learning rate that gets there soon; the held-out
    judge does not like it."""
    stack.end()
    gamed = {"labeler": "gamed", "learning_rate": 1e-3, "prompts_per_iteration": 4, "response_sampling": {"size": 8}}
    stack.start(f"{RUN_ID}-gamed", **gamed, gate={**ANYTHING, "labeler": "honest"})
    yield


@contextmanager
def exploding(stack: Stack) -> Iterator[None]:
    """A learning rate with thirty zeros too many: the second step of an update meets weights that overflow."""
    stack.end()
    stack.start(f"{RUN_ID}-exploding", learning_rate=1e30, minibatches=2, iterations=3)
    yield


@contextmanager
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of DISK_MIB in memory. Raises InvalidConfig where mounting is not allowed."""
    mounted = home.parent / "disk"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "drill", str(mounted)], capture_output=True, check=False
    )
    if done.returncode:
        raise InvalidConfig(
            f"A small disk cannot be mounted: {done.stderr.decode().strip()}.",
            "Run this drill as root, or leave it out.",
        )
    try:
        yield mounted / "home"
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@contextmanager
def filled_disk(stack: Stack) -> Iterator[None]:
    """Until DISK_LEFT of it is free."""
    wanted = int(psutil.disk_usage(str(stack.home)).free - DISK_LEFT * usable_bytes(stack.home))
    with (stack.home / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, wanted)
    yield


def has_a_canary(stack: Stack) -> bool:
    return "is the canary" in stack.learner.get(RUN_ID, most_rows=1).run.status


REMOTE, CROWD, ASKING = RemoteLabeler(), Crowd(), Users()
GAMED = {
    "labelers.gamed": 'kind = "verifier"\nfunction = "benchmarks.drill_rules:likes_e"',
    "labelers.honest": 'kind = "verifier"\nfunction = "benchmarks.drill_rules:dislikes_e"',
}
DRILLS = (
    Drill(
        "labeler-down",
        "The service that gives rewards is gone.",
        "labeler",
        frozenset({"LabelerSilent", "LabelerFails"}),
        window=240,
        sabotage=REMOTE.down,
        prepare=lambda stack: stack.start(labeler="remote", gate={**ANYTHING, "labeler": "e"}),
        settings=lambda: {**LABELER_E, **REMOTE.start()},
    ),
    Drill(
        "labeler-wrong",
        "Four annotators understand the guideline the other way round.",
        "annotators",
        frozenset({"GoldAccuracyLow"}),
        window=300,
        sabotage=CROWD.wrong,
        prepare=CROWD.prepare,
        settings=lambda: {"labeling": 'gold_share = 0.5\nguideline = "One short, friendly sentence is better."'},
    ),
    Drill(
        "slow-engine",
        f"The engine gets {SLOW_SHARE:.1%} of its processor time.",
        "engine",
        frozenset({"EngineSlow"}),
        window=240,
        sabotage=ASKING.wait_for_a_slow_engine,
        prepare=ASKING.prepare,
    ),
    Drill(
        "nan-update",
        "A learning rate of 1e30.",
        "gradient",
        frozenset({"GradientNotFinite"}),
        window=120,
        sabotage=exploding,
    ),
    Drill(
        "reward-hacking",
        "The labeler rewards one letter, and the held-out judge does not.",
        "reward",
        frozenset({"RewardGamed"}),
        window=420,
        sabotage=rewarded_for_the_wrong_thing,
        settings=lambda: {**LABELER_E, **GAMED},
        faster=5,
    ),
    Drill(
        "disk-nearly-full",
        f"{DISK_LEFT:.0%} of the disk is left.",
        "disk",
        frozenset({"DiskNearlyFull"}),
        window=90,
        sabotage=filled_disk,
        prepare=lambda stack: stack.start(iterations=HEALTHY_ITERATIONS),
        disk=small_disk,
    ),
    Drill(
        "dead-learner",
        "The learner's process hangs.",
        "service",
        frozenset({"ServiceDown"}),
        window=90,
        sabotage=hanging_learner,
    ),
    Drill(
        "stuck-canary",
        "A version is the canary, and nobody asks anything that could decide about it.",
        "canary",
        frozenset({"CanaryStuck"}),
        window=300,
        sabotage=nullcontext,
        is_healthy=has_a_canary,
        settings=lambda: {**LABELER_E, "inference.canary": "share = 0.2"},
        faster=15,
    ),
)
