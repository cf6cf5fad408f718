"""Baking with the real engines: the version moves to the merged one, where it says what it said in its slot."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.engine.served import Served, greedy, mean_difference, prompts, running_inference

pytestmark = pytest.mark.engine

BAKE_SECONDS = 6.0


@pytest.fixture(scope="module")
def served(base_model, learner, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("baking")
    with running_inference(folder, base_model, learner, "adapter", "float32", bake_seconds=BAKE_SECONDS) as service:
        yield service


def test_a_baked_version_says_what_it_said_in_its_slot_and_a_later_one_starts_in_a_slot(served: Served) -> None:
    ids = [tuple(served.learner.tokenizer.encode("The sea is a wide and quiet place in the morning."))]
    served.serve(seed=70)
    in_slot, answers = served.inference.score(ids), texts(served)
    deadline = time.monotonic() + 60
    while served.inference.score(ids) == in_slot:  # the other engine rounds otherwise in the last bits
        assert time.monotonic() < deadline, "it was never baked"
        time.sleep(0.5)
    assert mean_difference(served.inference.score(ids), in_slot) < 1e-4
    assert texts(served) == answers
    later = served.serve(seed=71)
    assert served.inference.sample(prompts(1), 1, greedy(2))[0][0].policy_version == later
    assert served.registry.rollback("test").state == "serving"
    assert mean_difference(served.inference.score(ids), in_slot) < 1e-4


def texts(served: Served) -> list[str]:
    return [group[0].text for group in served.inference.sample(prompts(2), 1, greedy(12))]
