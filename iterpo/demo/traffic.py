"""A second client that keeps asking while the policy changes under it: the witness that a swap fails nobody."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from iterpo.clients.inference import InferenceClient
from iterpo.types import Prompt, SamplingSettings
from iterpo.v1 import types_pb2

PAUSE_SECONDS = 2.0
"""Between two requests: a steady client, not a load test. on two cores an update beside a client
that asks without a pause takes three times as long."""


class Traffic:
    """Context manager. Sends one Generate after the other from a thread; any error or cut answer is a failure."""

    def __init__(self, client: InferenceClient, prompts: Sequence[Prompt], max_tokens: int = 12) -> None:
        self._client, self._prompts = client, prompts
        self._settings = SamplingSettings(temperature=0.7, max_tokens=max_tokens)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.requests, self.failed = 0, 0
        self.versions: set[int] = set()
        """Policy versions that answered."""
        self.errors: list[str] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            prompt = self._prompts[self.requests % len(self._prompts)]
            self.requests += 1
            try:
                self._ask(prompt)
            except Exception as error:  # noqa: BLE001  (whatever it is, this client's user would not have got an answer)
                self.failed += 1
                self.errors.append(f"{type(error).__name__}: {error}")

    def _ask(self, prompt: Prompt) -> None:
        """One whole answer, from one version, ended as it should be."""
        last = None
        seen = set()
        for last in self._client.generate(prompt.messages, self._settings):
            seen.add(last.policy_version)
        ended = (types_pb2.FINISH_REASON_STOP, types_pb2.FINISH_REASON_LENGTH)
        if last is None or last.finish_reason not in ended or len(seen) != 1:
            self.failed += 1
            self.errors.append(f"an answer ended badly: versions {sorted(seen)}")
        self.versions |= seen
