"""Where machines share policies: a folder that all of them mount, or object storage, by URL (fsspec).

    URL/<digest of the manifest>/adapter_config.json  adapter_model.safetensors  manifest.json

The manifest is written last. A version's name is what it holds, so two writers write the same, and nothing is ever
replaced. What is read is believed no more than any other bytes: `Depot.get` verifies all of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from iterpo.errors import InvalidConfig, InvalidInput, Unavailable
from iterpo.policies.manifest import ADAPTER_FILES, MANIFEST, Manifest, digest_bytes

logger = logging.getLogger(__name__)

DIGEST = re.compile("[0-9a-f]{64}")


class Depot:
    """May be used by several threads."""

    def __init__(self, url: str) -> None:
        """`url`: a path, or `s3://bucket/folder` and the like. Raises InvalidConfig (SHARED_POLICIES)."""
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidConfig(
                f"shared_policies is {url!r}: {error}.",
                "Use a path, or a URL that fsspec knows, and install its package (s3fs for s3://, gcsfs for gs://).",
                "SHARED_POLICIES",
            ) from error

    def put(self, files: Mapping[str, bytes]) -> None:
        """All files of a version, verified by the caller. Twice is as once. Raises Unavailable (DEPOT_AWAY)."""
        digest = digest_bytes(files[MANIFEST])
        if self._read(digest, MANIFEST) == files[MANIFEST]:
            return
        try:
            self._files.makedirs(f"{self._root}/{digest}", exist_ok=True)
            for name in (*ADAPTER_FILES, MANIFEST):
                self._files.pipe_file(f"{self._root}/{digest}/{name}", files[name])
        except Exception as error:  # every storage has errors of its own
            raise self._away(error) from error

    def get(self, digest: str) -> dict[str, bytes] | None:
        """A version's files, verified; None where they are not there, or not whole, which is logged.

        Raises Unavailable (DEPOT_AWAY), and InvalidInput for what is no digest: it would become a path.
        """
        if not DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest[:80]!r} is no digest.", "Send the SHA-256 of the version's manifest.json.")
        data = self._read(digest, MANIFEST)
        if data is None:
            return None
        found = {MANIFEST: data, **{name: self._read(digest, name) or b"" for name in ADAPTER_FILES}}
        if digest_bytes(data) != digest or not _whole(found):
            logger.error("%s is damaged in %s: delete it there, and publish again", digest[:12], self.url)
            return None
        return found

    def _read(self, digest: str, name: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{digest}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"The shared policies at {self.url} cannot be reached: {error}.",
            "See that this machine reaches it, and may read and write there (shared_policies in iterpo.toml).",
            "DEPOT_AWAY",
        )


def _whole(files: Mapping[str, Any]) -> bool:
    made = Manifest.parse(files[MANIFEST])
    return all(digest_bytes(files[name]) == made.files.get(name) for name in ADAPTER_FILES)
