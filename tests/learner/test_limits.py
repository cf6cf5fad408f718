"""What a run may not exceed is said at its start, with the prompt's id and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from iterpo.algorithms import Algorithm, resolve
from iterpo.config import Settings
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.learner.ledger import RunRecord
from iterpo.patience import Control
from iterpo.run_config import RunConfig
from iterpo.types import Completion, Example, FinishReason, Group, Message, Progress, Prompt
from iterpo.v1.inference_pb2 import GetModelResponse
from services.learner.assembly import Assembly
from services.learner.limits import check_lengths
from services.learner.runs import check_examples


class Words:
    """One token a word, one for the turn's start, one for the end of the answer."""

    base_digest = "d"

    def encode(self, example: Example) -> Group:
        ids = tuple(range(1 + len(example.prompt.text.split())))
        made = [(*range(len(answer.split())), 0) for answer in example.answers]
        return Group(
            "g",
            example.prompt,
            tuple(Completion("c", "p", "g", "", ids, t, (), FinishReason.STOP, 0, "") for t in made),
        )


def example(name: str, words: int, *answers: str) -> Example:
    return Example(Prompt(name, (Message("user", "w " * words),)), answers, 1.0 if len(answers) == 2 else None)


def check(examples: list[Example], heldout: list[Example]) -> None:
    check_lengths(Words(), examples, heldout, max_tokens=10, max_model_len=20)


def test_a_prompt_fits_when_it_leaves_room_for_the_longest_answer() -> None:
    check([example("fits", 9)], [example("fits too", 9)])  # 1 + 9 + 10 = 20
    with pytest.raises(InvalidInput, match="'long' has 11 tokens and its answer up to 10, more than the context of 20"):
        check([example("fits", 9), example("long", 10)], [])


def test_a_held_out_prompt_is_checked_as_well() -> None:
    with pytest.raises(
        InvalidInput, match=r"'held'.*lower run\.max_tokens, or raise inference\.max_model_len"
    ) as found:
        check([], [example("held", 10)])
    assert found.value.reason == "CONTEXT_EXCEEDED"


def test_a_given_answer_counts_with_its_own_length() -> None:
    check([example("pair", 14, "a b c d", "a")], [])  # 15 + 4 + 1 = 20; max_tokens is not sampled here
    with pytest.raises(InvalidInput, match="'pair' has 15 tokens and its answer up to 6"):
        check([example("pair", 14, "a", "a b c d e")], [])


def grpo(prompts: int, size: int) -> Algorithm:
    return resolve(RunConfig(prompts_per_iteration=prompts, response_sampling={"size": size}))


def test_an_iteration_that_no_call_can_carry_is_refused_by_the_start() -> None:
    one = [example("p", 1)]
    check_examples(grpo(1024, 4), one, one)
    check_examples(grpo(64, 64), one, one)
    for prompts, size in ((1025, 2), (65, 64)):
        with pytest.raises(InvalidConfig, match=r"Lower run\.prompts_per_iteration"):
            check_examples(grpo(prompts, size), one, one)


def test_more_held_out_prompts_than_a_call_can_carry_are_refused_by_the_start() -> None:
    one = [example("p", 1)]
    check_examples(grpo(1, 2), one, one * 1024)
    with pytest.raises(InvalidConfig, match=r"at most 1024 in run\.heldout"):
        check_examples(grpo(1, 2), one, one * 1025)


def test_a_new_run_asks_inference_how_long_its_prompts_may_be(tmp_path: Path) -> None:
    assembly = Assembly(Settings(data_dir=tmp_path))
    model = GetModelResponse(base_digest="d", max_model_len_tokens=20)
    config = RunConfig(max_tokens=10).model_dump()
    learner = Words()
    record = RunRecord("r", config, "RUNNING", "", Progress(), None, [example("long", 10)], [])
    with pytest.raises(InvalidInput, match="'long' has 11 tokens"):
        assembly._begin(record, model, learner, Control())
