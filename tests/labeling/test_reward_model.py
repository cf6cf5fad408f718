"""A reward model learns an order from preferences, is written whole, and comes back as a labeler."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from iterpo.errors import Conflict, CorruptModel, InvalidConfig, InvalidInput
from iterpo.labeling.feedback import Feedback, Pair, Ranking
from iterpo.labeling.labeler import judge
from iterpo.labeling.reward_directory import METRICS_FILE
from iterpo.labeling.reward_model import RewardModel
from iterpo.labeling.reward_training import (
    RewardTraining,
    Step,
    bradley_terry_loss,
    plackett_luce_loss,
    split_by_group,
    train_reward_model,
)
from iterpo.types import FeedbackEvent, Preference, Reward
from tests.labeling.builders import completion, group, prompt
from tests.labeling.tiny_model import WORDS, write_tiny_model


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def pair(first: str, second: str, group_id: str, p_first: float = 1.0) -> Pair:
    left, right = completion(first, f"{group_id}-0", group_id), completion(second, f"{group_id}-1", group_id)
    preference = Preference(group_id, left.completion_id, right.completion_id, p_first)
    return Pair(prompt("you are"), left, right, preference, "labels")


def friendly_pairs(count: int) -> list[Pair]:
    """Friendly words win; which side holds them alternates."""
    friendly, unfriendly = WORDS[:3], WORDS[3:6]
    pairs = []
    for index in range(count):
        nice = f"you are {friendly[index % 3]} day"
        nasty = f"you are {unfriendly[index // 3 % 3]} day"
        first_wins = index % 2 == 0
        texts = (nice, nasty) if first_wins else (nasty, nice)
        pairs.append(pair(*texts, f"g{index}", float(first_wins)))
    return pairs


def test_the_loss_is_bradley_terry_by_hand() -> None:
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])
    p_first, weight = torch.tensor([1.0, 0.5]), torch.tensor([3.0, 1.0])

    plain = bradley_terry_loss(first, second, p_first, weight, RewardTraining())
    with_terms = bradley_terry_loss(first, second, p_first, weight, RewardTraining(margin=0.5, centering=0.01))

    clear, tie = math.log(1 + math.exp(-1)), math.log(2)
    assert plain.item() == pytest.approx((3 * clear + tie) / 4)
    # The margin asks 0.5 more of the clear pair, nothing of the tie; centering adds 0.01 * (2 + 1)^2 to the first.
    narrow = math.log(1 + math.exp(-0.5))
    assert with_terms.item() == pytest.approx((3 * (narrow + 0.09) + tie) / 4)


def test_a_graded_margin_is_a_third_of_it_a_step_of_strength() -> None:
    """Llama 2: strength 3 asks for the whole margin, strength 1 for a third of it."""
    one, zero = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0])
    settings = RewardTraining(margin=0.9, graded=True)
    found = bradley_terry_loss(one, zero, torch.ones(2), torch.ones(2), settings, torch.tensor([3.0, 1.0]))
    assert found.item() == pytest.approx((math.log(1 + math.exp(-0.1)) + math.log(1 + math.exp(-0.7))) / 2)


def test_plackett_luce_by_hand() -> None:
    """Three equal rewards: log 3 + log 2 over two choices. Two rewards: Bradley-Terry."""
    assert plackett_luce_loss(torch.zeros(3)).item() == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert plackett_luce_loss(torch.tensor([2.0, 1.0])).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert plackett_luce_loss(torch.tensor([1.0, 2.0])) > plackett_luce_loss(torch.tensor([2.0, 1.0]))


def test_rankings_are_groups_in_the_order_of_their_rewards_without_ties() -> None:
    made = group("a", "b", "c", "d")
    rewards = dict(zip(made.completions, (0.5, 0.9, 0.5, 0.1), strict=True))
    events = [FeedbackEvent(1, "e", "run", 0.0, group=made)]
    events += [
        FeedbackEvent(2, c.text, "run", 0.0, reward=Reward(c.completion_id, r, "rule")) for c, r in rewards.items()
    ]
    (ranking,) = Feedback.of(events).rankings()
    assert [c.text for c in ranking.completions] == ["b", "a", "d"]


def test_a_reward_model_learns_from_rankings(tiny_model: Path, tmp_path: Path) -> None:
    pairs = friendly_pairs(32)
    rankings = [Ranking(p.preference.group_id, p.prompt, (p.chosen, p.rejected)) for p in pairs]
    settings = RewardTraining(epochs=6, learning_rate=5e-3, lora_rank=4, heldout_share=0.25)
    metrics = train_reward_model(tiny_model, pairs, tmp_path / "model", settings, rankings=rankings)
    assert (metrics["train_rankings"], metrics["heldout_pairs"], metrics["heldout_accuracy"]) == (24.0, 8.0, 1.0)


def test_turning_a_pair_round_changes_nothing() -> None:
    first, second, weight = torch.tensor([0.7]), torch.tensor([-0.2]), torch.tensor([1.0])
    settings = RewardTraining(margin=0.3, centering=0.01)
    one = bradley_terry_loss(first, second, torch.tensor([0.8]), weight, settings)
    other = bradley_terry_loss(second, first, torch.tensor([0.2]), weight, settings)
    assert one.item() == pytest.approx(other.item())


def test_a_groups_pairs_never_stand_on_both_sides_of_the_split() -> None:
    pairs = [pair("good", "bad", f"g{i % 5}") for i in range(20)]
    train, heldout = split_by_group(pairs, share=0.2, seed=1)
    assert len(train) + len(heldout) == 20
    assert len(heldout) == 4
    assert not {p.preference.group_id for p in train} & {p.preference.group_id for p in heldout}
    assert split_by_group(pairs[:1], 0.5, 0) == (pairs[:1], [])


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], list[Step]]:
    out = tmp_path_factory.mktemp("reward") / "model"
    steps: list[Step] = []
    settings = RewardTraining(epochs=6, batch_pairs=8, learning_rate=5e-3, lora_rank=4, heldout_share=0.25)
    metrics = train_reward_model(tiny_model, friendly_pairs(48), out, settings, steps.append)
    return out, metrics, steps


def test_training_brings_heldout_pairs_into_the_right_order(trained) -> None:
    _, metrics, steps = trained
    assert (metrics["train_pairs"], metrics["heldout_pairs"]) == (36.0, 12.0)
    assert metrics["heldout_accuracy"] == 1.0
    assert metrics["loss"] < 0.2 < steps[0].loss
    assert [step.step for step in steps] == list(range(1, 6 * 5 + 1))


def test_opposite_preferences_teach_the_opposite_order(tiny_model: Path, tmp_path: Path) -> None:
    turned = [
        pair(p.second.text, p.first.text, p.preference.group_id, p.preference.p_first_wins) for p in friendly_pairs(24)
    ]
    settings = RewardTraining(epochs=8, learning_rate=5e-3, lora_rank=4, heldout_share=0.0)
    metrics = train_reward_model(tiny_model, turned, tmp_path / "model", settings)
    assert "heldout_accuracy" not in metrics
    model = RewardModel("rm", tmp_path / "model")
    assert model.score(prompt("you are"), completion("you are rude day")) > model.score(
        prompt("you are"), completion("you are kind day")
    )


def test_a_trained_model_is_a_labeler_and_a_batch_scores_as_its_members_alone(trained) -> None:
    out, _, _ = trained
    model = RewardModel("rm", out, batch_size=2)
    items = [(prompt("you are"), completion(text)) for text in ("you are kind day", "bad", "you are warm")]

    together = [judgement.value for judgement in judge(model, items)]
    alone = [model.score(*item) for item in items]

    assert together == pytest.approx(alone, abs=1e-5), "padding must not move a reward"
    assert together[0] > together[1] < together[2]


def test_the_directory_is_written_whole_with_its_record(trained, tiny_model: Path) -> None:
    out, metrics, _ = trained
    record = json.loads((out / METRICS_FILE).read_text())
    assert record["base"] == str(tiny_model)
    assert record["metrics"] == metrics
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in out.rglob("*"))
    assert [path.name for path in out.parent.iterdir()] == ["model"], "no partial directory is left behind"


def test_an_existing_directory_is_not_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="already exists"):
        train_reward_model(tiny_model, friendly_pairs(4), tmp_path)


def test_without_a_preference_there_is_nothing_to_learn(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        train_reward_model(tiny_model, [pair("good", "bad", "g1", 0.5)], tmp_path / "out")
    assert refused.value.reason == "NO_PREFERENCES"


def test_a_whole_classifier_checkpoint_is_a_reward_model_too(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    model = RewardModel("rm", tmp_path)
    assert math.isfinite(model.score(prompt("you are"), completion("good")))


def test_a_language_model_without_a_score_head_is_refused_not_scored_at_random(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorruptModel) as refused:
        RewardModel("rm", tiny_model).load()
    assert refused.value.reason == "NOT_A_REWARD_MODEL"
    with pytest.raises(CorruptModel, match="no safetensors"):
        RewardModel("rm", tmp_path)


def test_an_adapter_whose_base_is_gone_is_refused(trained, tmp_path: Path) -> None:
    import shutil

    out, _, _ = trained
    shutil.copytree(out, tmp_path / "model")
    config = json.loads((tmp_path / "model/adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (tmp_path / "model/adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptModel, match=r"options\.base"):
        RewardModel("rm", tmp_path / "model")


def test_unknown_options_are_refused(tiny_model: Path) -> None:
    with pytest.raises(InvalidConfig, match="batch_size, max_tokens, base and dtype"):
        RewardModel("rm", tiny_model, batchsize=3)
