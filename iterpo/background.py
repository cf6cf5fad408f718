"""Work beside the caller, in a thread that does not keep a process alive which has to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")


def in_background(name: str, work: Callable[[], Result]) -> Future[Result]:
    """What `work` returns or raises, later."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  (whoever asks for the result gets it)
            future.set_exception(error)

    # In the caller's context: what is logged there is about the same run.
    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    return future
