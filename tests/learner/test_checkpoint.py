"""Checkpoints: whole or not there, and readable or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iterpo.algorithms import resolve
from iterpo.errors import CorruptModel, ResourceExhausted
from iterpo.learner import checkpoint
from iterpo.learner.learner import LoraLearner
from iterpo.learner.policy_model import PolicyModel
from iterpo.run_config import LoraConfig, RunConfig
from iterpo.types import DOCUMENT, Example, Message, Prompt
from tests.learner.test_trainer import selection
from tests.policies.full_disk import full_disk

ADAPTER = {"a": torch.arange(4.0)}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    adapter, optimizer, critic = checkpoint.load(tmp_path / "000001")
    assert critic is None
    assert adapter["a"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert (float(optimizer["state"][0]["step"]), optimizer["param_groups"]) == (3.0, [{"lr": 0.1}])


def test_a_critic_goes_on_where_it_stood(tiny_model: Path, tmp_path: Path) -> None:
    """Adapter, head and moments: the next update after loading is the one that would have come."""
    config = RunConfig(algorithm="ppo", max_tokens=3, learning_rate=0.01, critic_learning_rate=0.05)
    learner = LoraLearner(tiny_model, resolve(config), config)
    learner.update(selection())
    learner.save(tmp_path / "000001")
    learner.update(selection())
    expected = learner.trainer.critic.weights()

    other = LoraLearner(tiny_model, resolve(config), config)
    other.load(tmp_path / "000001")
    assert not torch.equal(other.trainer.critic.weights()["head"], expected["head"])
    other.update(selection())
    found = other.trainer.critic.weights()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_document_is_encoded_without_a_chat_from_its_first_token_on(tiny_model: Path) -> None:
    config = RunConfig(algorithm="pretrain")
    learner = LoraLearner(tiny_model, resolve(config), config)
    document = Example(Prompt("d", (Message(DOCUMENT, "w5 w6 w7"),)), ("w5 w6 w7",))
    (encoded,) = learner.encode(document).completions
    assert (encoded.prompt_token_ids, encoded.token_ids) == ((1,), (8, 9, 10, 2))  # w5 is the ninth word


def test_a_published_policy_holds_no_critic(tiny_model: Path, tmp_path: Path) -> None:
    config = RunConfig(algorithm="ppo", max_tokens=3)
    learner = LoraLearner(tiny_model, resolve(config), config)
    learner.update(selection())
    learner.model.save_adapter(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(ResourceExhausted, match="Free disk space") as caught:
        checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    assert caught.value.reason == "DISK_FULL"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "random.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path / "000001", ADAPTER, OPTIMIZER)
    (tmp_path / "000001" / name).write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match="cannot be read"):
        checkpoint.load(tmp_path / "000001")


def test_a_model_with_damaged_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptModel, match="not a loadable model"):
        PolicyModel(tmp_path, LoraConfig(), seed=0, budget=64)
