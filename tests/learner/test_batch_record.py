"""What an iteration was trained on is kept, and explained it gives the numbers that were trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iterpo.algorithms import resolve
from iterpo.errors import NotFound
from iterpo.explain import explain
from iterpo.learner.batch_record import BatchFiles, settings_of
from iterpo.learner.heldout_file import HeldoutFile
from iterpo.learner.learner import LoraLearner
from iterpo.run_config import RunConfig
from tests.learner.test_trainer import selection


def learner(tiny_model: Path, **run) -> LoraLearner:
    config = RunConfig.model_validate({"max_tokens": 3, "minibatches": 1, "epochs": 1} | run)
    return LoraLearner(tiny_model, resolve(config), config)


RUNS = {
    "grpo": {"algorithm": "grpo", "kl": {"beta": 0.1, "estimator": "k3"}, "normalizer": {"name": "per_token"}},
    "dpo": {"algorithm": "online_dpo", "gradient_coefficient": {"beta": 0.5}},
    "tdpo": {"algorithm": "tdpo2"},
    "ppo": {"algorithm": "ppo"},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_record_explains_what_was_trained_on(tiny_model: Path, name: str) -> None:
    """The objective is of the very step that was taken, with the run's own parameters."""
    made = learner(tiny_model, **RUNS[name])
    numbers = made.update(selection())
    record = json.loads(json.dumps(made.batch()))
    found = explain(record["method"], record["batch"], record["settings"])
    assert found["objective"] == pytest.approx(numbers["objective"], rel=1e-6, abs=1e-6)
    assert [len(line) for line in found["gradient"]] == [len(c.token_ids) for c in selection().completions]


def test_without_the_runs_parameters_it_would_not(tiny_model: Path) -> None:
    made = learner(tiny_model, **RUNS["dpo"])
    made.update(selection())
    record = made.batch()
    own = explain(record["method"], record["batch"], record["settings"])
    published = explain(record["method"], record["batch"])
    assert own["gradient"] != published["gradient"]


def test_the_record_of_several_steps_is_the_iteration_as_it_began(tiny_model: Path) -> None:
    made = learner(tiny_model, algorithm="grpo", minibatches=2, epochs=2, learning_rate=0.05)
    before = made.model.logprobs(selection().completions)
    made.update(selection())
    told = [p for s in made.batch()["batch"]["sequences"] for p in s["logprobs"]]
    assert told == pytest.approx(before.tolist())


def test_answers_and_tokens_can_be_read(tiny_model: Path) -> None:
    made = learner(tiny_model, algorithm="grpo")
    made.update(selection())
    record = made.batch()
    for answer, sequence, completion in zip(
        record["answers"], record["batch"]["sequences"], selection().completions, strict=True
    ):
        assert answer["completion_id"] == completion.completion_id
        assert len(sequence["tokens"]) == len(completion.token_ids)
        assert answer["prompt"]


def test_settings_are_those_that_the_run_names() -> None:
    config = RunConfig.model_validate(RUNS["grpo"] | {"mismatch": "tis", "off_policy_mask": 2.0})
    assert settings_of(config) == {
        "kl.beta": "0.1",
        "kl.estimator": "k3",
        "normalizer": "per_token",
        "mismatch": "tis",
        "off_policy_mask": "2.0",
    }
    assert settings_of(RunConfig()) == {}


def test_the_newest_batches_stay_and_the_others_say_that_they_are_gone(tmp_path: Path) -> None:
    files = BatchFiles(tmp_path / "batches", kept=2)
    for iteration in (1, 2, 3, 3):
        files.write(iteration, lambda method=f"m{iteration}": {"method": method})
    assert files.iterations() == [2, 3]
    assert files.read(3) == {"iteration": 3, "method": "m3"}
    with pytest.raises(NotFound, match="iterations 2 to 3") as gone:
        files.read(1)
    assert gone.value.reason == "BATCH_NOT_KEPT"


def test_none_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    files = BatchFiles(tmp_path / "batches", kept=0)
    files.write(1, lambda: pytest.fail("made for nobody"))
    assert files.iterations() == []
    assert not (tmp_path / "batches").exists()
    with pytest.raises(NotFound, match="None is"):
        files.read(1)


def test_a_disk_that_cannot_take_what_is_kept_for_people_does_not_end_the_run(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("where a directory should be")
    BatchFiles(tmp_path / "file" / "batches", kept=2).write(1, dict)
    HeldoutFile(tmp_path / "file" / "heldout.json").show(3, [])
    assert "the batch of iteration 1 is not kept" in caplog.text
    assert "answers of version 3 are not kept" in caplog.text


def test_a_record_that_cannot_be_made_does_not_end_the_run(tmp_path: Path, caplog) -> None:
    files = BatchFiles(tmp_path / "batches", kept=2)
    files.write(1, lambda: {}["no such token"])
    assert files.iterations() == []
    assert "the batch of iteration 1 is not kept" in caplog.text


@pytest.mark.parametrize("left", ["", '{"before": {"vers'])
def test_a_file_that_a_power_cut_left_half_written_does_not_end_the_run(tmp_path: Path, left: str) -> None:
    (tmp_path / "heldout.json").write_text(left)
    file = HeldoutFile(tmp_path / "heldout.json")
    assert file.read() == {}
    file.show(3, [])
    assert file.read()["after"]["version"] == 3


def test_the_first_answers_shown_stay_as_before_and_the_latest_are_after(tmp_path: Path) -> None:
    file = HeldoutFile(tmp_path / "runs" / "r" / "heldout.json")
    assert file.read() == {}
    for version in (0, 1, 2):
        file.show(version, [])
    assert {name: shown["version"] for name, shown in file.read().items()} == {"before": 0, "after": 2}
