"""A machine's policies: those that were published here, and those that were fetched, which may be fetched again."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from iterpo.errors import PolicyRejected
from iterpo.policies import manifest
from iterpo.policies.depot import Depot
from iterpo.policies.manifest import Manifest

ABSENT = ("POLICY_MISSING", "FILE_MISSING")
FETCHED = "fetched"
"""A file beside a version's own: it came from elsewhere. Its time is that of the version's last use."""


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
        with self._lock:
            try:
                found = manifest.read(self.root, version, digest)
            except PolicyRejected as error:
                if error.reason not in ABSENT or self._depot is None or not (files := self._depot.get(digest)):
                    raise
                self._write(version, files)
                found = manifest.read(self.root, version, digest)
            self._use(version)
            return found

    def files(self, version: int, digest: str) -> dict[str, bytes]:
        """All files of a version, the manifest's own among them. Raises as `read` does."""
        self.read(version, digest)
        return manifest.read_raw(self.root, version, digest)

    def receive(self, version: int, files: Mapping[str, bytes]) -> None:
        """Keep what was fetched, in the place of what lies there. Raises ResourceExhausted (DISK_FULL)."""
        with self._lock:
            self._write(version, files)

    def share(self, version: int, digest: str) -> None:
        """Put a version that was published here where other machines find it. Raises Unavailable."""
        if self._depot is not None:
            self._depot.put(self.files(version, digest))

    def prune(self, keep: Collection[int]) -> list[int]:
        """Delete fetched versions beyond the bound, those that were not used for longest first; never what was
        published here, nor `keep`. Returns which."""
        with self._lock:
            found = sorted(self.root.glob(f"v*/{FETCHED}"), key=lambda mark: mark.stat().st_mtime)
            size = {mark: sum(file.stat().st_size for file in mark.parent.iterdir()) for mark in found}
            total, gone = sum(size.values()), []
            for mark in found:
                version = int(mark.parent.name[1:])
                if self._most_bytes and total > self._most_bytes and version not in keep:
                    shutil.rmtree(mark.parent)
                    total -= size[mark]
                    gone.append(version)
            return gone

    def _write(self, version: int, files: Mapping[str, bytes]) -> None:
        manifest.receive(self.root, version, files)
        (manifest.directory(self.root, version) / FETCHED).touch()

    def _use(self, version: int) -> None:
        mark = manifest.directory(self.root, version) / FETCHED
        if mark.exists():
            os.utime(mark)
