from __future__ import annotations

import pytest

from iterpo.algorithms import ALGORITHMS, TABLE, check, resolve
from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_every_row_of_the_table_is_a_possible_triple_with_a_source(algorithm):
    check(algorithm)
    assert algorithm.source
    assert algorithm.defaults["learning_rate"] > 0


def test_the_table_has_the_methods_that_it_promises():
    assert list(TABLE) == ["sft", "rft", "grpo", "dr_grpo", "dapo", "offline_dpo", "iterative_dpo", "online_dpo"]


def test_published_settings_are_the_defaults():
    """DAPO: clip 0.2 / 0.28, group 16, token mean; Dr. GRPO: no std, constant normaliser; DPO: beta 0.1."""
    dapo, dr_grpo = TABLE["dapo"], TABLE["dr_grpo"]
    assert (dapo.gradient_coefficient.clip_low, dapo.gradient_coefficient.clip_high) == (0.2, 0.28)
    assert (dapo.response_sampling.size, dapo.normalizer.name) == (16, "per_token")
    assert (dr_grpo.gradient_coefficient.advantage, dr_grpo.normalizer.name) == ("centred", "constant")
    assert TABLE["offline_dpo"].gradient_coefficient.beta == 0.1


def test_single_fields_can_be_overridden_and_the_rest_stays():
    changed = resolve(RunConfig(algorithm="dapo", response_sampling={"size": 4.0}, learning_rate=1e-3))
    assert (changed.response_sampling.size, changed.response_sampling.refill) == (4, 3)
    assert changed.learning_rate == 1e-3
    assert changed.gradient_coefficient == TABLE["dapo"].gradient_coefficient


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"algorithm": "grp"}, "Did you mean 'grpo'"),
        ({"normalizer": {"name": "per_tokn"}}, "Did you mean 'per_token'"),
        ({"gradient_coefficient": {"betta": 1}}, "Its keys are: advantage"),
        ({"gradient_coefficient": {"beta": "much"}}, "is not float"),
        ({"response_sampling": {"size": 2.5}}, "is not int"),
        ({"mismatch": "tiss"}, "Did you mean 'tis'"),
    ],
)
def test_what_is_misspelt_is_named_with_its_neighbour(config, message):
    with pytest.raises(InvalidConfig, match=message):
        resolve(RunConfig(**config))


def test_a_coefficient_that_needs_pairs_refuses_a_sampler_that_gives_none():
    with pytest.raises(InvalidConfig, match="best_worst, random_pair, offline_pairs") as caught:
        resolve(RunConfig(algorithm="grpo", gradient_coefficient={"name": "dpo"}))
    assert caught.value.reason == "IMPOSSIBLE_TRIPLE"


def test_a_coefficient_that_needs_a_reference_refuses_an_algorithm_without_one():
    with pytest.raises(InvalidConfig, match="reference"):
        resolve(
            RunConfig(
                algorithm="dr_grpo", gradient_coefficient={"name": "dpo"}, response_sampling={"name": "best_worst"}
            )
        )


@pytest.mark.parametrize("name", [["group"], {"group": 1}, 3.0, None])
@pytest.mark.parametrize("axis", ["prompt_sampling", "response_sampling", "gradient_coefficient", "normalizer"])
def test_a_name_that_is_no_text_is_refused(axis, name):
    with pytest.raises(InvalidConfig, match=f"Unknown {axis}"):
        resolve(RunConfig(**{axis: {"name": name}}))
