"""A machine's policies: those that were published here, and those that were fetched, which may be fetched again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from iterpo.errors import PolicyRejected
from iterpo.policies import manifest
from iterpo.policies.depot import Depot
from iterpo.policies.manifest import FETCHED, Manifest

ABSENT = ("POLICY_MISSING", "FILE_MISSING")
T = TypeVar("T")


class PolicyFolder:
    """May be used by several threads."""

    def __init__(self, root: Path, depot: Depot | None = None, most_bytes: int = 0) -> None:
        """`depot`: where a version comes from that is not here. `most_bytes`: of fetched versions; 0: any number."""
        self.root = root
        self._depot, self._most_bytes = depot, most_bytes
        self._lock = threading.Lock()

    @classmethod
    def of(cls, data_dir: Path, shared_policies: str, fetched_mib: int = 0) -> PolicyFolder:
        """As iterpo.toml says. Raises InvalidConfig."""
        return cls(data_dir / "policies", Depot(shared_policies) if shared_policies else None, fetched_mib * 2**20)

    def read(self, version: int, digest: str) -> tuple[Manifest, dict[str, bytes]]:
        """As `manifest.read`, from the depot where it is not here. Raises Unavailable, too, when that is away."""
        return self._found(manifest.read, version, digest)

    def files(self, version: int, digest: str) -> dict[str, bytes]:
        """All files of a version, the manifest's own among them. Raises as `read` does."""
        return self._found(manifest.read_raw, version, digest)

    def receive(self, version: int, files: Mapping[str, bytes]) -> None:
        """Keep what was fetched, in the place of what lies there. Raises ResourceExhausted (DISK_FULL)."""
        with self._lock:
            manifest.receive(self.root, version, files)

    def share(self, version: int, digest: str) -> None:
        """Put a version that was published here where other machines find it. Raises Unavailable."""
        if self._depot is not None:
            self._depot.put(self.files(version, digest))

    def prune(self, keep: Collection[int]) -> list[int]:
        """Delete fetched versions beyond the bound, those that were not used for longest first; never what was
        published here, nor `keep`. Returns which."""
        if not self._most_bytes:
            return []
        with self._lock:
            marks = sorted(self.root.glob(f"v*/{FETCHED}"), key=lambda mark: mark.stat().st_mtime)
            size = {mark: sum(file.stat().st_size for file in mark.parent.iterdir()) for mark in marks}
            total, gone = sum(size.values()), []
            for mark in marks:
                version = int(mark.parent.name[1:])
                if total > self._most_bytes and version not in keep:
                    self._delete(mark.parent)
                    total -= size[mark]
                    gone.append(version)
            return gone

    def _found(self, read: Callable[[Path, int, str], T], version: int, digest: str) -> T:
        try:
            return self._read(read, version, digest)
        except PolicyRejected as error:
            # Not under the lock: a storage that hangs must hold up nobody who reads what is here.
            if error.reason not in ABSENT or self._depot is None or not (files := self._depot.get(digest)):
                raise
        self.receive(version, files)
        return self._read(read, version, digest)

    def _read(self, read: Callable[[Path, int, str], T], version: int, digest: str) -> T:
        with self._lock:
            found = read(self.root, version, digest)
            mark = manifest.directory(self.root, version) / FETCHED
            if mark.exists():
                os.utime(mark)
            return found

    def _delete(self, directory: Path) -> None:
        """Whole or not at all, as a reader sees it."""
        gone = directory.with_name(f".{directory.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
