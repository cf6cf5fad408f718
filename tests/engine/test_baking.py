"""Baking with the real engines: the version moves to the merged one, where it says what it said in its slot."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.engine.served import Served, greedy, mean_difference, prompts, running_inference

pytestmark = pytest.mark.engine

BAKE_SECONDS = 6.0
ROUNDED = 0.02
"""Nats a token: a merge is rounded to the base's bfloat16, whatever the engine computes in."""


@pytest.fixture(scope="module")
def served(base_model, learner, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("baking")
    with running_inference(folder, base_model, learner, "adapter", "float32", bake_seconds=BAKE_SECONDS) as service:
        yield service


def test_a_baked_version_says_what_it_said_in_its_slot_and_a_later_one_starts_in_a_slot(served: Served) -> None:
    ids = [tuple(served.learner.tokenizer.encode("The sea is a wide and quiet place in the morning."))]
    served.serve(seed=70)
    in_slot, base = served.inference.score(ids), served.inference.score(ids, "base")
    deadline = time.monotonic() + 60
    while served.inference.score(ids) == in_slot:  # a rounded merge shows that it answers from the other engine
        assert time.monotonic() < deadline, "it was never baked"
        time.sleep(0.5)
    baked = served.inference.score(ids)
    assert mean_difference(baked, in_slot) < ROUNDED
    assert mean_difference(baked, base) > 3 * ROUNDED
    later = served.serve(seed=71)
    assert served.inference.sample(prompts(1), 1, greedy(2))[0][0].policy_version == later
    served.registry.rollback("test")
    assert served.inference.score(ids) == baked
