"""A real labeling service with its page, as a process that can be killed and started again on the same ports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.demo.free_ports import free_ports
from iterpo.types import Completion, FinishReason, Group, Label, Message, Prompt
from tests.services.labeling_process import ROOT, START_SECONDS

MODULE = "services.labeling"
STOP = FinishReason.STOP

CONFIG = """
data_dir = "{data}"
[labeling]
address = "127.0.0.1:{grpc}"
page_address = "127.0.0.1:{http}"
metrics_address = ""
gold_share = 0.0
repeat_share = 0.0
{labeling}
[guidelines.care]
text = "Prefer the answer that *helps* more. Length is no merit."
aspects = ["helpful", "honest"]
{more}
"""


@dataclass
class PageService:
    directory: Path
    labeling: str = ""
    """Lines of [labeling]."""
    more: str = ""
    """Further sections."""
    token: str | None = None
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    """gRPC, page."""
    texts: dict[str, str] = field(default_factory=dict)
    """completion_id -> text, of what was recorded."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> int:
        return self.ports[0]

    @property
    def http(self) -> int:
        return self.ports[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def start(self) -> None:
        config = self.directory / "iterpo.toml"
        filled = {"data": self.directory / "data", "grpc": self.grpc, "http": self.http}
        config.write_text(CONFIG.format(**filled, labeling=self.labeling, more=self.more))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, "--config", config],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self._await_page()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def record(self, pairs: Sequence[tuple[str, str, str]], versions: tuple[int, int] = (0, 0)) -> None:
        """(prompt, one answer, the other) each becomes a task."""
        groups = [_group(*pair, versions) for pair in pairs]
        self.texts |= {c.completion_id: c.text for group in groups for c in group.completions}
        with connect(f"127.0.0.1:{self.grpc}", self.token) as channel:
            LabelingClient(channel).record("run", "people", groups, uuid.uuid4().hex)

    def labels(self) -> list[Label]:
        """Of the store, those taken back left out, read over gRPC."""
        with connect(f"127.0.0.1:{self.grpc}", self.token) as channel:
            events = list(LabelingClient(channel).stream("", 0, 0.3))
        undone = {event.retraction.label_id for event in events if event.retraction}
        return [event.label for event in events if event.label and event.label.label_id not in undone]

    def _await_page(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.address}/api/sign-in", timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise TimeoutError(f"the page did not come up: {self.log}")


@contextmanager
def page_service(
    directory: Path, labeling: str = "", more: str = "", token: str | None = None
) -> Iterator[PageService]:
    """Started; killed at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    service = PageService(directory, labeling, more, token)
    try:
        service.start()
        yield service
    finally:
        service.kill()


def _group(prompt: str, one: str, other: str, versions: tuple[int, int]) -> Group:
    group_id = uuid.uuid4().hex
    asked = Prompt(f"p-{group_id}", (Message("user", prompt),))

    def completion(number: int, text: str) -> Completion:
        found = Completion(
            f"{group_id}-{number}", asked.prompt_id, group_id, text, (1,), (2, 3), (-0.5, -0.2), STOP, 0, "d"
        )
        return replace(found, policy_version=versions[number])

    return Group(group_id, asked, (completion(0, one), completion(1, other)))
