"""Merged delivery through the real engine, in float32: token for token what transformers says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from iterpo.types import SamplingSettings
from tests.engine.contract import Contract
from tests.engine.served import Served, prompts, running_inference

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def served(base_model, learner, tmp_path_factory) -> Iterator[Served]:
    with running_inference(tmp_path_factory.mktemp("merged"), base_model, learner, "merged", "float32") as service:
        yield service


@pytest.fixture
def reference(base_model, served) -> Callable[[int], object]:
    import torch

    from iterpo.policies import manifest
    from tests.engine.reference import Reference

    return lambda version: Reference(
        base_model, manifest.directory(served.policies, version), torch.float32, merged=True
    )


def probe_scores(served: Served) -> list[list[float]]:
    from iterpo.policies import probe

    return served.inference.score(list(probe.sequences(served.learner.tokenizer)))


def test_after_other_weights_the_base_is_the_base_again_to_the_last_bit(served):
    """First of this file: a fresh server serves the base. Version 2 takes the base's place, the rollback brings it
    back into the engine that held version 2."""
    assert served.serving == 0
    before = probe_scores(served)
    version = served.serve(seed=1)
    assert probe_scores(served) != before
    served.registry.load(*served.publish(seed=2))
    served.registry.rollback("test")
    assert served.serving == 0
    assert probe_scores(served) == before
    assert version in {p.version for p in served.registry.versions()}


class TestMerged(Contract):
    near_tie = 0.0
    noise = 1e-4

    def test_a_version_that_is_loaded_again_is_the_same_to_the_last_bit(self, served):
        served.serve(seed=30)
        before = probe_scores(served)
        served.serve(seed=31)
        served.registry.load(*served.publish(seed=32))
        served.registry.rollback("test")
        assert probe_scores(served) == before

    def test_a_sample_from_the_base_brings_it_back_whoever_took_its_place(self, served):
        """A run that plays against its reference draws from the base in every iteration."""
        for seed in (35, 36, 37):
            version = served.serve(seed)
            ((answer,),) = served.inference.sample(prompts(1), 1, SamplingSettings(max_tokens=2, seed=1), "base")
            assert answer.policy_version == 0
            assert served.serving == version

    def test_a_merge_of_two_versions_is_proved_like_any_other_policy(self, served, base_model):
        from iterpo.learner.mixing import publish_merge

        versions = [served.publish(seed=33)[0], served.publish(seed=34)[0]]
        made = publish_merge(base_model, served.folder, dict.fromkeys(versions, 0.5), 16, max(versions))
        assert 0 < made.error < 1  # two of rank 16 do not fit into 16
        assert served.registry.load(made.version, made.digest).proof.proved

    def test_a_seed_repeats_the_answers_and_every_sample_has_its_own(self, served):
        settings = SamplingSettings(temperature=1.0, max_tokens=12, seed=7)

        def drawn(s: SamplingSettings) -> list[list[tuple[int, ...]]]:
            return [[c.token_ids for c in group] for group in served.inference.sample(prompts(2), 3, s)]

        first = drawn(settings)
        assert drawn(settings) == first
        assert all(len(set(group)) == 3 for group in first)
        assert drawn(SamplingSettings(temperature=1.0, max_tokens=12, seed=8)) != first
        unseeded = SamplingSettings(temperature=1.0, max_tokens=12)
        assert drawn(unseeded) != drawn(unseeded)
