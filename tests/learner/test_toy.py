"""Every method, end to end, on a toy preference: real samplers and trainer, a tiny model, seed 0, seconds.

`golden.json` holds each method's objective of every iteration: a refactor must not move them. After a change that
should (a default, a sampler), `GOLDEN=write pytest tests/learner/test_toy.py` writes them anew; say why in the commit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from iterpo.algorithms import TABLE
from tests.learner.toy import Toy, reward

GOLDEN = Path(__file__).with_name("golden.json")
ITERATIONS = 6
ONLINE = [name for name, a in TABLE.items() if not a.response_sampling.offline]
LEAST_GAIN = {"remax": 0.05, "astar_po": 0.08, "nash_md": 0.08}
"""Of the mean reward, in [0, 1], where one half is the start; 0.1 for all others. These three train on one answer a
prompt beside those that measure the baseline or play the rival, a quarter of what the others see."""
LEAST_ACCURACY = {"apo_down": 0.7, "kto": 0.8}
"""APO-down lowers both answers, which moves them apart more slowly; KTO's is by answer, not by pair."""
OFFLINE = [name for name, a in TABLE.items() if a.response_sampling.offline]


@pytest.fixture(scope="module")
def runs(toy_model):
    made: dict[str, tuple[Toy, float, float]] = {}

    def run(name: str) -> tuple[Toy, float, float]:
        if name not in made:
            toy = Toy(toy_model, name)
            made[name] = (toy, *toy.learn(ITERATIONS))
        return made[name]

    yield run
    if os.environ.get("GOLDEN") == "write":
        golden = json.loads(GOLDEN.read_text()) | {name: toy.objectives for name, (toy, _, _) in made.items()}
        GOLDEN.write_text(json.dumps(golden, indent=0) + "\n")


@pytest.mark.parametrize("name", ONLINE)
def test_every_online_method_raises_the_reward(runs, name):
    _, before, after = runs(name)
    assert after - before > LEAST_GAIN.get(name, 0.1)


@pytest.mark.parametrize("name", [n for n in OFFLINE if "pairs" in TABLE[n].response_sampling.provides])
def test_every_offline_method_tells_the_better_answer_from_the_worse(runs, name):
    """By the method's own margin, on the pairs that it was given: a coin before, nearly always after."""
    toy, _, _ = runs(name)
    accuracies = [n["accuracy"] for n in toy.numbers]
    assert accuracies[0] < 0.7
    assert accuracies[-1] > LEAST_ACCURACY.get(name, 0.85)


@pytest.mark.parametrize("name", ["pretrain", "sft", "dft"])
def test_imitation_makes_what_was_shown_more_likely(runs, name):
    toy, _, _ = runs(name)
    shown = [g.completions[0] for g in toy.given]
    lengths = [len(c.token_ids) for c in shown]
    current = toy.model.logprobs(shown)
    with toy.model.base():
        gains = (current - toy.model.logprobs(shown)).split(lengths)
    assert sum(float(g.sum()) for g in gains) / len(gains) > 0.3


@pytest.mark.parametrize("name", TABLE)
def test_the_objectives_are_those_of_the_golden_run(runs, name):
    toy, _, _ = runs(name)
    golden = json.loads(GOLDEN.read_text())[name]
    assert toy.objectives == pytest.approx(golden, rel=1e-6, abs=1e-9)


def test_a_reward_that_is_turned_round_turns_the_learning_round(toy_model):
    """Negative control: the tests above can fail."""
    toy = Toy(toy_model, "grpo", reward=lambda c: 1 - reward(c))
    before, after = toy.learn(ITERATIONS)
    assert after - before > 0.1
    toy.reward = reward
    assert toy.score() < 0.4
