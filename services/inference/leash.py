"""An engine's processes end with the service, however it ended.

`kill -9` reaches one process, and vLLM's wait for their parent's word for ever, with gigabytes. `iterpo up` kills what
is left of a service; whoever else may be looking after it (Ray kills children, and not theirs) need not.
"""

from __future__ import annotations

import contextlib
import os
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
    """`ancestors`: the nearest first. Without the service among them it has ended already, and whoever is left ends
    when this process does."""
    pids = [process.pid for process in ancestors]
    if service in pids:
        place = pids.index(service)
        ancestors[place].wait()
        for between in ancestors[:place]:
            with contextlib.suppress(psutil.NoSuchProcess):
                between.kill()
    os._exit(1)
