"""`make demo ALGORITHM=...` means something for every method of the table."""

from __future__ import annotations

import pytest

from iterpo.algorithms import TABLE, resolve
from iterpo.demo.settings import demo_run
from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig


@pytest.mark.parametrize("name", [*TABLE, "dpo"])
def test_every_method_has_a_demo_that_resolves(name):
    run = demo_run(name, 3, None)
    algorithm = resolve(RunConfig.model_validate(run))
    assert (run["seed"], run["iterations"]) == (3, 10)
    assert algorithm.epochs * algorithm.minibatches == (16 if name == "star" else 2)
    assert algorithm.kl.beta == 0


def test_the_two_demos_that_were_measured_keep_their_settings():
    """README and CHANGELOG state what these learn."""
    grpo, dpo = demo_run("grpo", 0, None), demo_run("online_dpo", 0, None)
    assert (grpo["learning_rate"], grpo["prompts_per_iteration"], grpo["response_sampling"]) == (1e-3, 8, {"size": 8})
    assert (dpo["learning_rate"], dpo["prompts_per_iteration"]) == (5e-4, 16)
    assert dpo["response_sampling"] == {"name": "best_worst", "size": 8}
    assert dpo["gradient_coefficient"] == {"beta": 0.5}


def test_an_unknown_method_has_no_demo():
    with pytest.raises(InvalidConfig, match="Unknown algorithm"):
        demo_run("gpro", 0, None)
