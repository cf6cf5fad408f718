"""A merge of published versions is measured and published as a version of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iterpo.algorithms import find
from iterpo.errors import InvalidInput, PolicyRejected, WrongState
from iterpo.learner.learner import LoraLearner
from iterpo.learner.mixing import publish_merge
from iterpo.policies import manifest
from iterpo.policies.adapter import parse
from iterpo.run_config import LoraConfig, RunConfig


def published(base: Path, data_dir: Path, version: int) -> LoraLearner:
    """A version with random weights; returns the learner that holds them."""
    learner = LoraLearner(base, find("sft"), RunConfig(lora=LoraConfig(r=2, alpha=4), seed=version))
    draw = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in learner.model.parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    learner.publish(data_dir / "policies", version, {}, {})
    return learner


def test_a_merge_is_published_with_its_weights_and_measures_like_the_sum(tiny_model, tmp_path):
    for version in (1, 2):
        published(tiny_model, tmp_path, version)
    made = publish_merge(tiny_model, tmp_path, {1: 0.5, 2: 0.5}, 16, highest=7)
    assert (made.version, made.rank, made.error) == (8, 4, 0.0)
    found, files = manifest.read(tmp_path / "policies", 8, made.digest)
    assert (found.method, found.parent, found.metrics["weight_v1"]) == ("merge", 2, 0.5)

    whole = parse(files, 16).pairs
    parts = [parse(manifest.read(tmp_path / "policies", v, "")[1], 16) for v in (1, 2)]
    for module, (a, b) in whole.items():
        expected = sum(0.5 * p.scaling * p.pairs[module][1] @ p.pairs[module][0] for p in parts)
        assert torch.allclose(b @ a, expected, atol=1e-5)

    alone = publish_merge(tiny_model, tmp_path, {1: 1.0}, 16, highest=8)
    measured = manifest.read(tmp_path / "policies", alone.version, "")[0].probe.merged_logprobs
    original = manifest.read(tmp_path / "policies", 1, "")[0].probe.merged_logprobs
    assert torch.allclose(torch.tensor(measured[0]), torch.tensor(original[0]), atol=1e-2)


def test_the_base_is_the_zero_update(tiny_model, tmp_path):
    published(tiny_model, tmp_path, 1)
    made = publish_merge(tiny_model, tmp_path, {1: 0.5, 0: 0.5}, 16, highest=1)
    _, files = manifest.read(tmp_path / "policies", made.version, made.digest)
    one = parse(manifest.read(tmp_path / "policies", 1, "")[1], 16)
    for module, (a, b) in parse(files, 16).pairs.items():
        assert torch.allclose(b @ a, 0.5 * one.scaling * one.pairs[module][1] @ one.pairs[module][0], atol=1e-5)
    with pytest.raises(InvalidInput, match="nothing to merge"):
        publish_merge(tiny_model, tmp_path, {0: 1.0}, 16, highest=1)


def test_versions_that_are_not_there_or_of_another_base_are_refused(tiny_model, toy_model, tmp_path):
    with pytest.raises(PolicyRejected) as caught:
        publish_merge(tiny_model, tmp_path, {5: 1.0}, 16, highest=5)
    assert caught.value.reason == "POLICY_MISSING"
    published(toy_model, tmp_path, 1)
    with pytest.raises(WrongState) as caught:
        publish_merge(tiny_model, tmp_path, {1: 1.0}, 16, highest=1)
    assert caught.value.reason == "BASE_MISMATCH"
