"""A policy version on disk: an immutable directory whose manifest names the SHA-256 of every file (invariant 1).

    policies/v000012/adapter_model.safetensors  adapter_config.json  manifest.json

The manifest's own SHA-256 is the version's digest. Directories are written under a dot-name on the same file system,
synced, and renamed: a reader sees all of a version or nothing. Paths are made from the version number alone; no path
from a request ever reaches the file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iterpo.errors import Conflict, InvalidInput, PolicyRejected, ResourceExhausted

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MANIFEST = "manifest.json"
FETCHED = "fetched"
"""An empty file beside a version's own that came from elsewhere. Its time is that of the version's last use."""
SCHEMA = 1


@dataclass(frozen=True)
class Probe:
    """Fixed token sequences and the learner's own log-probs of them, in the three forms that may be served.

    Merging rounds the update to the engine's type, which is a policy of its own: in bfloat16 its log-probs differ from
    the adapter's by as much as 0.1 nats a token once the update is large (DECISIONS.md). So both are measured.
    """

    sequences: tuple[tuple[int, ...], ...]
    base_logprobs: tuple[tuple[float, ...], ...]
    """Base weights. Nats; one fewer than the tokens of each sequence."""
    adapter_logprobs: tuple[tuple[float, ...], ...]
    """Base plus adapter, as it was trained."""
    merged_logprobs: tuple[tuple[float, ...], ...]
    """Adapter folded into the base and rounded to the type that the engine computes in."""

    def delivered(self, form: str) -> tuple[tuple[float, ...], ...]:
        """What an engine that serves in this form (`adapter` or `merged`) should measure."""
        return self.adapter_logprobs if form == "adapter" else self.merged_logprobs


@dataclass(frozen=True)
class Manifest:
    version: int
    base_digest: str
    """`digest_model` of the base that the adapter was trained on."""
    probe: Probe
    parent: int = 0
    run_id: str = ""
    method: str = ""
    iteration: int = 0
    feedback_first: int = 0
    """Cursor of the first of the feedback events that its last iteration was trained on; 0 for none."""
    feedback_cursor: int = 0
    """Every feedback event up to here had been seen when the version was made."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256, hexadecimal."""
    schema: int = SCHEMA

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        try:
            raw = json.loads(data)
            probe = {k: tuple(tuple(row) for row in rows) for k, rows in raw.pop("probe").items()}
            return cls(probe=Probe(**probe), **raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PolicyRejected(
                f"The manifest cannot be read: {error}.", "Publish the policy again.", "MANIFEST_UNREADABLE"
            ) from error


def directory(root: Path, version: int) -> Path:
    if version < 1:
        raise InvalidInput(f"Policy version {version} has no directory.", "Published versions count from 1.")
    return root / f"v{version:06d}"


def latest_version(root: Path) -> int:
    """The highest version ever published under `root`; 0 when there is none."""
    return max((int(p.name[1:]) for p in root.glob("v[0-9]*") if p.name[1:].isdigit()), default=0)


def publish(root: Path, manifest: Manifest, write_adapter: Callable[[Path], None]) -> str:
    """Write a version's directory atomically and durably; returns the manifest's digest.

    `write_adapter` puts the two adapter files into the directory it is given. Raises Conflict if the version exists,
    ResourceExhausted when the disk is full (nothing is left behind).
    """
    from safetensors import SafetensorError  # what writing an adapter to a full disk raises

    target = directory(root, manifest.version)
    if target.exists():
        raise Conflict(f"Policy version {manifest.version} exists already.", "Publish under the next version number.")
    staging = root / f".{target.name}.writing"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        write_adapter(staging)
        files = {name: digest_bytes((staging / name).read_bytes()) for name in ADAPTER_FILES}
        data = json.dumps(asdict(manifest) | {"files": files}, indent=1).encode()
        (staging / MANIFEST).write_bytes(data)
        for path in (*staging.iterdir(), staging):
            sync(path)
        staging.rename(target)
        sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ResourceExhausted(
            f"Policy version {manifest.version} could not be written under {root}: "
            f"{getattr(error, 'strerror', None) or error}.",
            "Free disk space there (old versions may be deleted) and resume the run.",
            "DISK_FULL",
        ) from error
    return digest_bytes(data)


def receive(root: Path, version: int, files: Mapping[str, bytes]) -> None:
    """Put a version that was fetched from elsewhere where `read` finds it, whole or not at all, in the place of what
    lies there. It is believed no more than anything else on the disk: `read` verifies it.

    Raises ResourceExhausted when the disk is full.
    """
    target = directory(root, version)
    staging = root / f".{target.name}.fetching"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for name in (MANIFEST, *ADAPTER_FILES):
            (staging / name).write_bytes(files.get(name, b""))
        (staging / FETCHED).touch()
        for path in (*staging.iterdir(), staging):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        sync(root)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ResourceExhausted(
            f"Policy version {version} could not be written under {root}: {error.strerror or error}.",
            "Free disk space there (old versions may be deleted).",
            "DISK_FULL",
        ) from error


def read(root: Path, version: int, manifest_digest: str) -> tuple[Manifest, dict[str, bytes]]:
    """The version's manifest and adapter files, each verified on the very bytes that are returned.

    Raises PolicyRejected with reason POLICY_MISSING, STALE_MANIFEST, FILE_MISSING or DIGEST_MISMATCH.
    """
    path = directory(root, version)
    data = _read(path / MANIFEST, "POLICY_MISSING")
    if manifest_digest and digest_bytes(data) != manifest_digest:
        raise PolicyRejected(
            f"Version {version} has manifest {digest_bytes(data)[:12]}, not the announced {manifest_digest[:12]}.",
            "The path holds another policy than the one that was published: publish under a new version.",
            "STALE_MANIFEST",
        )
    manifest = Manifest.parse(data)
    if manifest.version != version:
        raise PolicyRejected(
            f"The directory of version {version} holds version {manifest.version}.",
            "Never copy policy directories: publish under a new version.",
            "STALE_MANIFEST",
        )
    files = {name: _read(path / name, "FILE_MISSING") for name in ADAPTER_FILES}
    for name, content in files.items():
        if digest_bytes(content) != manifest.files.get(name):
            raise PolicyRejected(
                f"{name} of version {version} ({len(content)} bytes) does not have the digest of its manifest.",
                "The file was changed or cut after publishing: publish the policy again under a new version.",
                "DIGEST_MISMATCH",
            )
    return manifest, files


def read_raw(root: Path, version: int, manifest_digest: str) -> dict[str, bytes]:
    """All files of a version, the manifest's own among them, verified. Raises as `read` does."""
    _, files = read(root, version, manifest_digest)
    return {MANIFEST: _read(directory(root, version) / MANIFEST, "POLICY_MISSING"), **files}


def peek(root: Path, version: int) -> Manifest | None:
    """The version's manifest as it stands, unverified: for lineage, never for loading. None without one."""
    path = directory(root, version) / MANIFEST
    return Manifest.parse(path.read_bytes()) if path.is_file() else None


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_model(path: Path) -> str:
    """SHA-256 over the names and contents of a model's weights and config: what an adapter is bound to."""
    total = hashlib.sha256()
    for file in sorted((*path.glob("*.safetensors"), path / "config.json")):
        total.update(file.name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, reason: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyRejected(
            f"{path.name} of {path.parent.name} cannot be read: {error.strerror}.",
            "Publish the policy again, into the directory that inference reads (data_dir in iterpo.toml).",
            reason,
        ) from error


def summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest without the probe's numbers, for people."""
    return {k: v for k, v in asdict(manifest).items() if k != "probe"}
