"""Delivered means proved, part one: what is read is what was published, or it is refused with its own reason."""

from __future__ import annotations

import errno
import shutil

import pytest

from iterpo.errors import Conflict, PolicyRejected, ResourceExhausted
from iterpo.policies import manifest
from tests.policies.builders import BASE_DIGEST, probe, publish
from tests.policies.full_disk import full_disk


def refused(root, version, digest) -> str:
    with pytest.raises(PolicyRejected, match=r"publish|Publish") as caught:
        manifest.read(root, version, digest)
    return caught.value.reason


def test_what_was_published_is_read_back(tmp_path):
    digest = publish(tmp_path)
    made, files = manifest.read(tmp_path, 1, digest)
    assert (made.base_digest, made.method, made.probe) == (BASE_DIGEST, "grpo", probe())
    assert set(files) == set(manifest.ADAPTER_FILES)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_one_flipped_byte_is_found_wherever_it_is(tmp_path, position):
    digest = publish(tmp_path)
    path = tmp_path / "v000001" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert refused(tmp_path, 1, digest) == "DIGEST_MISMATCH"


def test_a_truncated_file_is_found(tmp_path):
    digest = publish(tmp_path)
    path = tmp_path / "v000001" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert refused(tmp_path, 1, digest) == "DIGEST_MISMATCH"


def test_new_bytes_under_an_old_path_are_stale_even_when_they_agree_with_themselves(tmp_path):
    digest = publish(tmp_path)
    shutil.rmtree(tmp_path / "v000001")
    publish(tmp_path, b=2.0)
    assert refused(tmp_path, 1, digest) == "STALE_MANIFEST"


def test_a_copied_directory_is_not_another_version(tmp_path):
    digest = publish(tmp_path)
    shutil.copytree(tmp_path / "v000001", tmp_path / "v000002")
    assert refused(tmp_path, 2, digest) == "STALE_MANIFEST"


def test_what_is_not_there_is_said_to_be_missing(tmp_path):
    digest = publish(tmp_path)
    (tmp_path / "v000001" / "adapter_config.json").unlink()
    assert refused(tmp_path, 1, digest) == "FILE_MISSING"
    assert refused(tmp_path, 7, digest) == "POLICY_MISSING"


def test_a_version_is_published_once(tmp_path):
    publish(tmp_path)
    with pytest.raises(Conflict, match="next version number"):
        publish(tmp_path)
    assert manifest.latest_version(tmp_path) == 1


def test_a_full_disk_leaves_nothing_behind_and_harms_no_other_version(tmp_path):
    digest = publish(tmp_path)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceExhausted, match="Free disk space"):
        manifest.publish(tmp_path, manifest.Manifest(2, BASE_DIGEST, probe()), full)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v000001"]
    assert manifest.read(tmp_path, 1, digest)[0].version == 1


def test_the_models_digest_covers_weights_and_config(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = manifest.digest_model(tmp_path)
    (tmp_path / "notes.txt").write_text("not part of it")
    assert manifest.digest_model(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    assert manifest.digest_model(tmp_path) != before


def test_an_adapter_that_the_disk_does_not_take_leaves_nothing_behind(tmp_path):
    with full_disk(limit=400), pytest.raises(ResourceExhausted, match="Free disk space") as caught:
        publish(tmp_path, rank=64)
    assert caught.value.reason == "DISK_FULL"
    assert list(tmp_path.iterdir()) == []
