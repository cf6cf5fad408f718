"""An engine's processes end with the service, however it ended.

`kill -9` reaches one process, and vLLM's wait for their parent's word for ever, with gigabytes. `iterpo up` kills what
is left of a service; whoever else may be looking after it (Ray kills children, and not theirs) need not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

import psutil

SERVICE = "ITERPO_INFERENCE_PROCESS"


def hold() -> None:
    """In the service, before its engines."""
    os.environ[SERVICE] = str(os.getpid())


def follow() -> None:
    """In an engine's innermost process: end it, and those between it and the service, when the service has ended."""
    service = int(os.environ.get(SERVICE, "0"))
    if service not in (0, os.getpid()):
        threading.Thread(target=_follow, args=(service, psutil.Process().parents()), daemon=True).start()


def _follow(service: int, ancestors: list[psutil.Process]) -> None:
    between = [process.pid for process in ancestors]
    if service in between:  # else it has ended already, and somebody else is the parent
        between = between[: between.index(service)]
        _await_end(service)
    else:
        between = []
    for pid in between:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(1)


def _await_end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        end.poll()
