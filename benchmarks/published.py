"""Policy versions without training: a few adapters with random matrices, published again under new numbers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iterpo.policies import manifest

KEPT = 6
"""Directories that stay behind the newest: whatever an engine may still be asked to load."""


class Copies:
    """Publishes copies of versions that lie in `root` already, in turn."""

    def __init__(self, root: Path, sources: Sequence[int], first: int) -> None:
        self._root, self._sources, self._next = root, tuple(sources), first

    def publish(self) -> tuple[int, str]:
        """(version, digest) of the next one; the directory is complete and synced when this returns."""
        version, self._next = self._next, self._next + 1
        source = manifest.directory(self._root, self._sources[version % len(self._sources)])
        made = manifest.Manifest.parse((source / manifest.MANIFEST).read_bytes())

        def copy(target: Path) -> None:
            for name in manifest.ADAPTER_FILES:
                shutil.copy(source / name, target)

        digest = manifest.publish(self._root, replace(made, version=version), copy)
        self._forget(version - KEPT)
        return version, digest

    def _forget(self, version: int) -> None:
        if version > max(self._sources):
            shutil.rmtree(manifest.directory(self._root, version), ignore_errors=True)
