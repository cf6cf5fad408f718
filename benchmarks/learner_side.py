"""iterpo's side of the learner's comparison: `python -m benchmarks.learner_side MODEL METHOD DTYPE [WITHOUT]`, asked by
benchmarks.learner. A request {"prompt_tokens": N} is answered by one update on given completions; with {"batches": K},
on K times as many. {"learn": FOLDER} is answered by updates on the batches that TRL kept there, from the adapter that
it began with. WITHOUT: one of the parts below, which the learner then lacks."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.child import serve_parent
from benchmarks.learner_task import LORA_ALPHA, LORA_RANK, Task, settings, task
from services.torch_environment import set_defaults


def main(base: Path, method: str, dtype: str, without: str = "") -> None:
    set_defaults()
    from iterpo.algorithms import resolve
    from iterpo.learner.learner import LoraLearner
    from iterpo.run_config import RunConfig

    lora = {"r": LORA_RANK, "alpha": LORA_ALPHA}
    config = RunConfig.model_validate(settings(method) | {"dtype": dtype, "lora": lora})
    algorithm = resolve(config)
    learner = LoraLearner(base, algorithm, config)
    if without:
        WITHOUT[without](learner)
    made = {"dpo": pairs}.get(method, groups)

    def answer(request: dict[str, Any]) -> dict[str, float]:
        if "learn" in request:
            return learn_as_trl(learner, Path(request["learn"]))
        given = [task(request["prompt_tokens"], seed) for seed in range(request.get("batches", 1))]
        everything = [group for n, each in enumerate(given) for group in made(each, f"{n}/")]
        selection = algorithm.response_sampling.select(everything, 0)
        started = time.monotonic()
        learner.update(selection)
        seconds = time.monotonic() - started
        return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    serve_parent(answer)


def pad(learner: Any) -> None:
    """Every sequence to its row's longest, each with a prompt of its own."""
    learner.model.shares_prompts = False


def measure_first(learner: Any) -> None:
    """All log-probs in a pass of their own, before the one that is differentiated."""
    learner.trainer._told_on_the_way = lambda *_: None  # noqa: SLF001


def whole_head(learner: Any) -> None:
    """The logits of all of a row's tokens at once."""
    learner.model.head.chunk = sys.maxsize


def as_autograd(part: str, learner: Any) -> None:
    """Undoes iterpo.learner.adapters, gates or norms, which put a partial in place of a layer's forward."""
    ours = import_module(f"iterpo.learner.{part}")._forward  # noqa: SLF001
    layers = [m for m in learner.model.peft.modules() if getattr(vars(m).get("forward"), "func", None) is ours]
    if not layers:
        raise RuntimeError(f"no layer keeps less: see how iterpo.learner.{part} marks them")
    for layer in layers:
        del layer.forward


def scores_again(_learner: Any) -> None:
    """No row's attention weights are kept for the backward."""
    from iterpo.learner import attention

    attention.KEPT_BYTES = 0


def rows_of(length: int, learner: Any) -> None:
    from iterpo.learner.memory import TokenBudget

    learner.model.budget = TokenBudget(length)


WITHOUT: dict[str, Callable[[Any], None]] = {
    "packing": pad,
    "one_pass": measure_first,
    "chunked_head": whole_head,
    "adapters": partial(as_autograd, "adapters"),
    "gates": partial(as_autograd, "gates"),
    "norms": partial(as_autograd, "norms"),
    "kept_scores": scores_again,
    "short_rows": partial(rows_of, 4096),
    "long_rows": partial(rows_of, 256),
    "allocator": lambda _learner: None,
    "openmp": lambda _learner: None,
    "spinning": lambda _learner: None,
}
"""What an update can be done without, to see what it is worth; of the last three benchmarks.learner starts the process
without them."""

OF_BFLOAT16 = ("norms",)
"""Parts that there are in bfloat16 alone."""

OF_LIBRARIES = {
    "allocator": "It needs tcmalloc (apt install libtcmalloc-minimal4), and no LD_PRELOAD (unset it).",
    "openmp": "It needs Intel's OpenMP (pip install intel-openmp), and no LD_PRELOAD (unset it).",
}
"""Parts that are compiled libraries (iterpo.preload), and what helps where none is left out."""


def learn_as_trl(learner: Any, folder: Path) -> dict[str, float]:
    """Writes the adapter after the last of TRL's batches to `ours.safetensors`, and tells how far it lies from TRL's,
    in parts of the way that TRL went."""
    from safetensors.torch import load_file, save_file

    steps = len(list(folder.glob("batch-*.json")))
    first, last = (load_file(folder / f"step-{number}.safetensors") for number in (0, steps))
    ours = {name: p for name, p in learner.model.peft.named_parameters() if p.requires_grad}
    for name, parameter in ours.items():
        parameter.data.copy_(first[name])
    for number in range(1, steps + 1):
        rows = json.loads((folder / f"batch-{number}.json").read_text())
        learner.update(learner.trainer.algorithm.response_sampling.select(groups(grouped(rows), f"{number}/"), 0))
    save_file({name: p.detach().clone() for name, p in ours.items()}, folder / "ours.safetensors")
    return {"distance": apart(ours, last) / apart(first, last)}


def grouped(rows: list[Any]) -> Task:
    """Of [prompt, completion, advantage] in any order; advantages, normalised once more, stay what they are."""
    prompts = list(dict.fromkeys(tuple(prompt) for prompt, *_ in rows))
    members = [[row for row in rows if tuple(row[0]) == prompt] for prompt in prompts]
    completions = [[tuple(ids) for _, ids, _ in each] for each in members]
    return Task(prompts, completions, [[advantage for *_, advantage in each] for each in members])


def apart(some: dict[str, Any], others: dict[str, Any]) -> float:
    return float(sum(float((some[name].detach() - others[name]).square().sum()) for name in others) ** 0.5)


def groups(given: Task, name: str) -> list[Any]:
    from iterpo.types import Group

    made = []
    for g, (prompt, completions, rewards) in enumerate(
        zip(given.prompts, given.completions, given.rewards, strict=True)
    ):
        answers = tuple(answer(f"{name}{g}/{i}", prompt, ids) for i, ids in enumerate(completions))
        scores = {c.completion_id: reward for c, reward in zip(answers, rewards, strict=True)}
        made.append(Group(f"{name}{g}", named(f"{name}{g}"), answers, scores))
    return made


def pairs(given: Task, name: str) -> list[Any]:
    """Neighbours of a group; the first one is the chosen one."""
    from iterpo.types import Group, Preference

    made = []
    for g, (prompt, completions) in enumerate(zip(given.prompts, given.completions, strict=True)):
        for i in range(0, len(completions), 2):
            group = f"{name}{g}/{i}"
            both = tuple(answer(f"{group}/{n}", prompt, ids) for n, ids in enumerate(completions[i : i + 2]))
            preference = Preference(group, both[0].completion_id, both[1].completion_id, 1.0)
            made.append(Group(group, named(group), both, preferences=(preference,)))
    return made


def answer(name: str, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Any:
    from iterpo.types import Completion, FinishReason

    return Completion(name, name, name, "", prompt, ids, (), FinishReason.STOP, 0, "")


def named(name: str) -> Any:
    from iterpo.types import Message, Prompt

    return Prompt(name, (Message("user", "x"),))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
