"""`stamp`: what tells that a file on the disk was replaced or written to."""

from __future__ import annotations

from pathlib import Path


def stamp(*files: Path) -> tuple[tuple[int, int, int], ...]:
    """Changes when one of the files does. One that is not there has zeros."""
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
