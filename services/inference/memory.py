"""What a load leaves behind: freed pages that the C library keeps.

Loading a version allocates and frees tens of megabytes between smaller pieces that live on. With this the service's
processes held 3,920 MiB after 70 swaps in adapter mode, without it 4,110 (one run each); both still grew.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return free pages to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
