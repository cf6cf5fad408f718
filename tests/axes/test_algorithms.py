from __future__ import annotations

import pytest

from iterpo.algorithms import ALGORITHMS, TABLE, check, find, resolve
from iterpo.errors import InvalidConfig
from iterpo.run_config import RunConfig


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_every_row_of_the_table_is_a_possible_triple_with_a_source(algorithm):
    check(algorithm)
    assert algorithm.source
    assert algorithm.defaults["learning_rate"] > 0


def test_the_table_has_the_methods_that_it_promises():
    likelihood = "pretrain sft dft rft raft rest star"
    gradients = (
        "reinforce rloo remax reinforce_pp reinforce_pp_baseline ppo grpo dr_grpo dapo gspo gmpo cispo cispo_verl"
    )
    more = "sapo vapo kimi opo gpg pass_at_k astar_po ctb"
    given = "offline_dpo cdpo robust_dpo ipo ipo_sum slic slic_hf simpo orpo cpo dpop r_dpo ln_dpo ld_dpo tdpo1 tdpo2"
    unpaired = "exo nca apo_zero apo_down bco kto mpo tipo odpo"
    online = "iterative_dpo online_dpo self_rewarding iterative_rpo sppo dno xpo nash_md apl"
    assert list(TABLE) == " ".join((likelihood, gradients, more, given, unpaired, online)).split()


def test_dpo_is_another_name_of_offline_dpo():
    assert find("dpo") is TABLE["offline_dpo"]
    assert resolve(RunConfig(algorithm="dpo")) == TABLE["offline_dpo"]


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
        ({"algorithm": "gpro"}, "Did you mean 'grpo'"),
        ({"normalizer": {"name": "per_tokn"}}, "Did you mean 'per_token'"),
        ({"gradient_coefficient": {"clip": 1}}, "Its keys are: advantage"),
        ({"kl": {"betta": 1}}, "Its keys are: beta, estimator, place"),
        ({"kl": {"beta": "much"}}, "is not float"),
        ({"kl": {"beta": True}}, "is not float"),
        ({"response_sampling": {"size": 2.5}}, "is not int"),
        ({"mismatch": "tiss"}, "Did you mean 'tis'"),
    ],
)
def test_what_is_misspelt_is_named_with_its_neighbour(config, message):
    with pytest.raises(InvalidConfig, match=message):
        resolve(RunConfig(**config))


def test_a_coefficient_that_needs_pairs_refuses_a_sampler_that_gives_none():
    with pytest.raises(InvalidConfig, match=r"best_worst, random_pair, .*offline_pairs") as caught:
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


@pytest.mark.parametrize(
    ("config", "reason", "fix"),
    [
        ({"algorithm": "simpo", "normalizer": {"name": "per_token"}}, "IMPOSSIBLE_NORMALIZER", "sequence_sum"),
        ({"algorithm": "rloo", "normalizer": {"name": "per_sequence"}}, "IMPOSSIBLE_NORMALIZER", "sequence_sum"),
        ({"algorithm": "offline_dpo", "mismatch": "tis"}, "CORRECTION_WITHOUT_MEANING", 'mismatch = "none"'),
        ({"algorithm": "kto", "off_policy_mask": 0.5}, "CORRECTION_WITHOUT_MEANING", "off_policy_mask"),
        ({"algorithm": "grpo", "critic_learning_rate": 1e-4}, "CORRECTION_WITHOUT_MEANING", "critic_learning_rate"),
        ({"kl": {"estimator": "k1"}}, "KL_WITHOUT_EFFECT", 'place = "reward"'),
        ({"kl": {"estimator": "ratio_k3", "place": "reward"}}, "KL_WITHOUT_EFFECT", "k3"),
        ({"algorithm": "dpo", "kl": {"beta": 0.1, "place": "reward"}}, "KL_WITHOUT_EFFECT", "coefficient"),
        ({"algorithm": "dr_grpo", "kl": {"beta": 0.1}}, "IMPOSSIBLE_TRIPLE", "an algorithm with a reference"),
        (
            {"algorithm": "grpo", "gradient_coefficient": {"name": "xpo"}},
            "IMPOSSIBLE_TRIPLE",
            "one_from_each, geometric_rival",
        ),
        ({"algorithm": "grpo", "gradient_coefficient": {"name": "ppo"}}, "IMPOSSIBLE_TRIPLE", "ppo, vapo"),
        ({"algorithm": "dpo", "gradient_coefficient": {"name": "tdpo"}}, "IMPOSSIBLE_TRIPLE", "tdpo1, tdpo2"),
        ({"response_sampling": {"size": 1, "uniform": "keep"}}, "IMPOSSIBLE_TRIPLE", "size to 2 or more"),
        ({"response_sampling": {"name": "greedy_baseline"}}, "IMPOSSIBLE_TRIPLE", "size to 2 or more"),
        ({"algorithm": "pass_at_k", "response_sampling": {"size": 3}}, "IMPOSSIBLE_TRIPLE", "size to 4 or more"),
        ({"algorithm": "iterative_dpo", "gradient_coefficient": {"name": "kto"}}, "IMPOSSIBLE_TRIPLE", "is the base"),
        ({"algorithm": "kto", "prompts_per_iteration": 1}, "IMPOSSIBLE_TRIPLE", "2 or more"),
        ({"algorithm": "dpo", "prompt_sampling": {"name": "uncertainty"}}, "IMPOSSIBLE_TRIPLE", "uniform"),
        ({"algorithm": "pass_at_k", "kl": {"beta": 0.1, "place": "reward"}}, "IMPOSSIBLE_TRIPLE", "reference"),
        ({"algorithm": "dpo", "replay": {"groups": 1}}, "CORRECTION_WITHOUT_MEANING", "Remove"),
        ({"algorithm": "online_dpo", "response_sampling": {"name": "dueling"}}, "NO_JUDGES", "ensemble ="),
    ],
)
def test_a_part_that_means_nothing_beside_the_others_is_refused_with_the_fix(config, reason, fix):
    with pytest.raises(InvalidConfig) as caught:
        resolve(RunConfig(**config))
    assert caught.value.reason == reason
    assert fix in caught.value.fix


def test_kl_normalizer_and_correction_are_free_choices_where_they_mean_something():
    """Controls of the refusals above."""
    changed = resolve(
        RunConfig(
            algorithm="grpo",
            normalizer={"name": "per_token"},
            kl={"estimator": "k1", "place": "reward"},
            mismatch="sequence_mask",
            off_policy_mask=0.5,
        )
    )
    assert (changed.normalizer.name, changed.kl.beta, changed.kl.place) == ("per_token", 0.04, "reward")
    assert (changed.mismatch, changed.off_policy_mask) == ("sequence_mask", 0.5)
    assert resolve(RunConfig(algorithm="dpo", kl={"beta": 0.1, "estimator": "k2"})).kl.beta == 0.1
    assert resolve(RunConfig(algorithm="ppo", critic_learning_rate=1e-4)).critic_learning_rate == 1e-4
