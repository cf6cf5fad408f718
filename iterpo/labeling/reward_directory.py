"""The directory of a trained reward model: its weights and a record, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iterpo.errors import Conflict
from iterpo.policies.manifest import sync

METRICS_FILE = "reward_model.json"
"""`base`, `training` (the settings) and `metrics`."""


def check_absent(out_dir: Path) -> None:
    """Raises Conflict OUT_DIR_EXISTS."""
    if out_dir.exists():
        raise Conflict(f"{out_dir} already exists.", "Name a new directory, or move that one away.", "OUT_DIR_EXISTS")


@contextmanager
def written_whole(out_dir: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """A dot-directory beside the target to save the weights into; synced and renamed when the block is left."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = out_dir.parent / f".{out_dir.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    (partial / METRICS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in [*partial.rglob("*"), partial]:
        sync(path)
    partial.rename(out_dir)
    sync(out_dir.parent)
