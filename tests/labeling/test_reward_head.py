"""A reward head: one line on frozen hidden states, fitted by its own optimum, measured on pairs it did not see."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from iterpo.errors import Conflict, CorruptModel, InvalidInput
from iterpo.labeling.calibration import accuracy
from iterpo.labeling.reward_head import HeadTraining, _held_out, _Problem, train_reward_head
from iterpo.labeling.reward_model import HEAD_FILE, RewardModel
from tests.labeling.builders import completion, prompt
from tests.labeling.test_reward_model import friendly_pairs, pair
from tests.labeling.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    out = tmp_path_factory.mktemp("head") / "model"
    return out, train_reward_head(tiny_model, friendly_pairs(48), out)


def test_with_one_feature_the_fit_is_where_the_derivative_is_nothing() -> None:
    """Four pairs with difference 1, three of them won, prior margin 1: penalty w^2 / 2, so 3 - 4 s(w) = w."""
    pairs = [pair("good", "bad", f"g{i}", float(i < 3)) for i in range(4)]
    problem = _Problem(torch.ones(4, 1, dtype=torch.float64), pairs, prior_margin=1.0)
    w = float(problem.solve(range(4))[0])
    assert 3 - 4 / (1 + math.exp(-w)) == pytest.approx(w, abs=1e-6)
    assert problem.loss(torch.zeros(1, dtype=torch.float64)) == pytest.approx(math.log(2))


def test_half_a_vote_counts_half_and_a_tie_draws_to_nothing() -> None:
    won, tied = pair("good", "bad", "g0"), pair("good", "bad", "g1", 0.5)
    light = replace(won, preference=replace(won.preference, weight=0.5))
    x = torch.ones(1, 1, dtype=torch.float64)
    full, half = (float(_Problem(x, [each], 1.0).solve([0])[0]) for each in (won, light))
    assert 0 < half < full
    assert float(_Problem(x, [tied], 1.0).solve([0])[0]) == pytest.approx(0, abs=1e-9)


def test_it_orders_pairs_that_it_did_not_see(trained: tuple[Path, dict[str, float]]) -> None:
    _, metrics = trained
    assert (metrics["train_pairs"], metrics["heldout_pairs"], metrics["heldout_accuracy"]) == (48.0, 48.0, 1.0)
    assert metrics["loss"] < math.log(2)
    assert metrics["layers"] == 1.0, "of two a quarter is none, but one is the least"


def test_labels_drawn_by_lot_are_not_learnt(tiny_model: Path, tmp_path: Path) -> None:
    """The negative control: whoever guesses is right on half of the pairs, within four standard deviations."""
    chance = random.Random(0)
    pairs = [
        replace(p, preference=replace(p.preference, p_first_wins=float(chance.random() < 0.5)))
        for p in friendly_pairs(96)
    ]
    accuracy = train_reward_head(tiny_model, pairs, tmp_path / "head")["heldout_accuracy"]
    assert abs(accuracy - 0.5) < 4 * 0.5 / math.sqrt(96)


def test_which_answer_is_called_the_first_does_not_matter(tiny_model: Path, tmp_path: Path) -> None:
    """A third of the pairs turned round, answers and preference together: the same line."""
    pairs = friendly_pairs(24)
    turned = [
        pair(p.second.text, p.first.text, p.preference.group_id, 1 - p.preference.p_first_wins) if n % 3 == 0 else p
        for n, p in enumerate(pairs)
    ]
    lines = []
    for name, given in (("one", pairs), ("other", turned)):
        train_reward_head(tiny_model, given, tmp_path / name)
        with safe_open(tmp_path / name / HEAD_FILE, framework="pt") as file:
            lines.append(file.get_tensor("weight"))
    assert torch.allclose(*lines, atol=1e-4 * float(lines[0].abs().max()))


def test_what_a_fold_was_fitted_to_is_not_what_it_is_measured_on() -> None:
    """More features than pairs and labels by lot: each fit knows its own pairs by heart, and of others it knows
    nothing; within four standard deviations of a half."""
    chance = random.Random(1)
    pairs = [pair("good", "bad", f"g{i}", float(chance.random() < 0.5)) for i in range(60)]
    x = torch.randn(60, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = _Problem(x, pairs, prior_margin=5.0)
    first_wins = [p.preference.p_first_wins > 0.5 for p in pairs]
    assert accuracy((x @ problem.solve(range(60))).tolist(), first_wins) == 1.0
    held_out = _held_out(problem, pairs, HeadTraining())
    assert held_out["heldout_pairs"] == 60
    assert abs(held_out["heldout_accuracy"] - 0.5) < 4 * 0.5 / math.sqrt(60)


def test_more_layers_than_there_are_would_be_random_ones(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has 2 layers"):
        train_reward_head(tiny_model, friendly_pairs(4), tmp_path / "head", HeadTraining(layers=3))


def test_opposite_preferences_are_the_opposite_line(trained: tuple[Path, dict[str, float]], tiny_model, tmp_path):
    turned = [
        replace(p, preference=replace(p.preference, p_first_wins=1 - p.preference.p_first_wins))
        for p in friendly_pairs(48)
    ]
    train_reward_head(tiny_model, turned, tmp_path / "head")
    lines = []
    for folder in (trained[0], tmp_path / "head"):
        with safe_open(folder / HEAD_FILE, framework="pt") as file:
            lines.append(file.get_tensor("weight"))
    assert torch.allclose(lines[0], -lines[1], atol=1e-4 * float(lines[0].abs().max()))


def test_it_comes_back_as_a_labeler_with_the_margins_that_it_was_fitted_to(
    trained: tuple[Path, dict[str, float]],
) -> None:
    """The mean loss of the loaded model's margins is the loss that the fit reported."""
    out, metrics = trained
    model = RewardModel("taste", out, batch_size=5)
    losses = []
    for each in friendly_pairs(48):
        first, second = model.score_batch([(each.prompt, each.first), (each.prompt, each.second)])
        margin = first - second if each.preference.p_first_wins == 1 else second - first
        losses.append(math.log1p(math.exp(-margin)))
    assert sum(losses) / len(losses) == pytest.approx(metrics["loss"], rel=0.02)


def test_padding_moves_no_reward(trained: tuple[Path, dict[str, float]]) -> None:
    model = RewardModel("taste", trained[0], dtype="float32")
    items = [(prompt("you are"), completion(text)) for text in ("you are kind day", "bad", "you are warm")]
    assert model.score_batch(items) == pytest.approx([model.score(*item) for item in items], abs=1e-5)


def test_a_group_alone_cannot_be_held_out(tiny_model: Path, tmp_path: Path) -> None:
    metrics = train_reward_head(tiny_model, [pair("good", "bad", "g")], tmp_path / "head", HeadTraining(layers=2))
    assert "heldout_accuracy" not in metrics
    assert metrics["layers"] == 2.0


def test_a_head_for_another_base_is_refused(
    trained: tuple[Path, dict[str, float]], tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = write_tiny_model(tmp_path / "other")
    LlamaForCausalLM(LlamaConfig.from_pretrained(other, hidden_size=16)).save_pretrained(other)
    with pytest.raises(CorruptModel, match="hidden states of 32"):
        RewardModel("taste", trained[0], base=str(other)).load()
    with pytest.raises(CorruptModel, match="is not there"):
        RewardModel("taste", trained[0], base=str(tmp_path / "nowhere"))


def test_a_torn_head_is_refused(trained: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    (tmp_path / HEAD_FILE).write_bytes((trained[0] / HEAD_FILE).read_bytes()[:20])
    with pytest.raises(CorruptModel, match="cannot be read"):
        RewardModel("taste", tmp_path)


def test_nothing_is_overwritten_and_ties_alone_teach_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="already exists"):
        train_reward_head(tiny_model, friendly_pairs(4), tmp_path)
    with pytest.raises(InvalidInput) as refused:
        train_reward_head(tiny_model, [pair("good", "bad", "g", 0.5)], tmp_path / "head")
    assert refused.value.reason == "NO_PREFERENCES"
