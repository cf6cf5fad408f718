"""tcmalloc instead of the C library's allocator, for processes that compute, where it is installed.

A learner's rows and an engine's batches have ever new lengths, and glibc keeps the gaps between what they free
(docs/performance.md has the figures).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from functools import cache

QUIET = str(1 << 40)
"""Bytes of one allocation above which tcmalloc writes a line to the log; at a gibibyte by itself."""


@cache
def environment() -> dict[str, str]:
    """What a process to be started needs: nothing where the library is missing (Debian: libtcmalloc-minimal4), or where
    LD_PRELOAD is set already, if to nothing: that is somebody's choice."""
    if sys.platform != "linux" or "LD_PRELOAD" in os.environ:
        return {}
    library = ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")
    return {"LD_PRELOAD": library, "TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD": QUIET} if library else {}


def give_back() -> None:
    """What is free, to the system: both allocators keep it for the next time. An inference service held 3,920 MiB after
    70 swaps in adapter mode with this, and 4,110 without (glibc, one run each)."""
    for name, arguments in (("malloc_trim", (0,)), ("MallocExtension_ReleaseFreeMemory", ())):
        if function := getattr(ctypes.CDLL(None), name, None):
            function(*arguments)
