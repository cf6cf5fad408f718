"""TRL's side of the learner's comparison: `python -m benchmarks.trl_side MODEL METHOD DTYPE SEED`, asked by
benchmarks.learner. It runs with TRL's own packages on the path, which benchmarks.learner installs apart from ours.

A request {"prompt_tokens": N} is answered by one update on given completions: TRL's loss, the backward, clipping and
the optimiser's step. {"steps": N} is answered by that many steps of its training loop, answers sampled and judged by
it, from where the last ones ended, or, with {"afresh": true}, from the base; with {"keep": FOLDER}, GRPO's adapters and
batches are written there. {"heldout": true} is answered by the mean reward of its greedy held-out answers, or, with
{"adapter": FILE}, of those with these weights.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import say, serve_parent
from benchmarks.learner_task import (
    COMPLETION_TOKENS,
    GROUPS,
    LORA_ALPHA,
    LORA_RANK,
    SIZE,
    Task,
    reward_of,
    settings,
    task,
)

MOST_STEPS = 1000
SAMPLED = Counter[str]()
"""Tokens of answers, since the process began."""
LAST: dict[str, Any] = {}
"""GRPO's last batch, as TRL pads it."""


def main(base: str, method: str, dtype: str, seed: str) -> None:
    import torch

    common = {
        "output_dir": tempfile.mkdtemp(),
        "learning_rate": settings(method)["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_steps": MOST_STEPS,
        "bf16": dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "report_to": [],
        "seed": int(seed),
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": MOST_STEPS,
    }
    trainer = TRAINERS[method](base, common, read("prompts.jsonl"))
    trainer.create_optimizer()
    if trainer.args.gradient_checkpointing:  # as its training loop does, which a single update does not enter
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)

    def peak() -> dict[str, float]:
        return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def update(request: dict[str, Any]) -> dict[str, float]:
        inputs = TENSORS[method](task(request["prompt_tokens"]), trainer)
        return {"seconds": timed_update(trainer, inputs)} | peak()

    steps = Stepping(trainer)

    def answer(request: dict[str, Any]) -> dict[str, float]:
        if "prompt_tokens" in request:
            return update(request)
        return steps.walk(request) | peak()

    serve_parent(answer)


def read(name: str) -> list[dict[str, Any]]:
    """The demo's prompts, as chats."""
    from iterpo.run_data import demo_file

    rows = [json.loads(line) for line in Path(demo_file(name)).read_text().splitlines()]
    return [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]


def dataset(rows: list[dict[str, Any]]) -> Any:
    """With a name of its own: to make one up, datasets 5.2 pickles what pyarrow 26 cannot be pickled with."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable.from_pylist(rows), fingerprint="task")


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def grpo(base: str, common: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """The published loss, as ours: an average within each sequence, no KL."""
    from trl import GRPOConfig, GRPOTrainer

    def rewards(completions: list[Any], completion_ids: list[Any], **_: Any) -> list[float]:
        eos = trainer.processing_class.eos_token_id
        SAMPLED["tokens"] += sum(map(len, completion_ids))
        answers = zip(completions, completion_ids, strict=True)
        return [reward_of(c[0]["content"], ids[-1] == eos) for c, ids in answers]

    trainer = GRPOTrainer(
        model=base,
        reward_funcs=rewards,
        args=GRPOConfig(
            per_device_train_batch_size=GROUPS * SIZE,
            num_generations=SIZE,
            max_completion_length=COMPLETION_TOKENS,
            loss_type="grpo",
            beta=0.0,
            **common,
        ),
        train_dataset=dataset(rows),
        peft_config=lora(),
    )
    sample = trainer._generate_and_score_completions  # noqa: SLF001

    def sample_and_keep(inputs: Any) -> Any:
        LAST.update(sample(inputs))
        return dict(LAST)

    trainer._generate_and_score_completions = sample_and_keep  # noqa: SLF001
    return trainer


def dpo(base: str, common: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    from trl import DPOConfig, DPOTrainer

    pairs = [row | {"chosen": [said("yes")], "rejected": [said("no")]} for row in rows]
    return DPOTrainer(
        model=base,
        args=DPOConfig(per_device_train_batch_size=GROUPS * SIZE // 2, **common),
        train_dataset=dataset(pairs),
        peft_config=lora(),
    )


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def online_dpo(base: str, common: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(base)

    def rewards(completions: list[Any], completion_ids: list[Any], **_: Any) -> list[float]:
        eos = tokenizer.eos_token_id  # rows are padded, and TRL hands them over whole
        SAMPLED["tokens"] += sum(ids.index(eos) + 1 if eos in ids else len(ids) for ids in completion_ids)
        texts = [c[0]["content"] if isinstance(c, list) else c for c in completions]
        return [reward_of(t, eos in ids) for t, ids in zip(texts, completion_ids, strict=True)]

    return OnlineDPOTrainer(
        # As TRL's GRPO and DPO do by default. The checkpoint's bfloat16, which this one would take, is emulated on CPUs
        # without it.
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        reward_funcs=rewards,
        args=OnlineDPOConfig(
            per_device_train_batch_size=GROUPS * SIZE // 2,
            max_new_tokens=COMPLETION_TOKENS,
            temperature=1.0,
            beta=settings("online_dpo")["gradient_coefficient"]["beta"],
            # Its default for gradient checkpointing, False, also computes every earlier token anew for each new one.
            generation_kwargs={"use_cache": True},
            **common,
        ),
        train_dataset=dataset(rows),
        processing_class=tokenizer,
        peft_config=lora(),
    )


TRAINERS = {"grpo": grpo, "dpo": dpo, "online_dpo": online_dpo}


def timed_update(trainer: Any, inputs: dict[str, Any]) -> float:
    model = trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    started = time.monotonic()
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(model, inputs)
    trainer.accelerator.backward(loss)
    trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return time.monotonic() - started


def grpo_tensors(given: Task, trainer: Any) -> dict[str, Any]:
    """The task as TRL pads it, with group-normalised advantages."""
    import torch

    device, pad = trainer.accelerator.device, trainer.processing_class.pad_token_id
    prompts = torch.tensor([p for p in given.prompts for _ in range(SIZE)], device=device)
    flat = [torch.tensor(c) for group in given.completions for c in group]
    completions = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=pad).to(device)
    lengths = torch.tensor([len(c) for c in flat], device=device)
    mask = (torch.arange(completions.shape[1], device=device) < lengths[:, None]).long()
    rewards = torch.tensor(given.rewards, device=device)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": completions,
        "completion_mask": mask,
        "advantages": advantages.flatten(),
        "num_items_in_batch": mask.sum(),
    }


def dpo_tensors(given: Task, trainer: Any) -> dict[str, Any]:
    """Neighbours of a group are pairs; chosen ones in the first half of the batch, rejected ones in the second."""
    examples = []
    for prompt, group in zip(given.prompts, given.completions, strict=True):
        for chosen, rejected in zip(group[::2], group[1::2], strict=True):
            examples.append(
                {"prompt_ids": list(prompt), "chosen_ids": list(chosen), "rejected_ids": list(rejected)},
            )
    found: dict[str, Any] = trainer.data_collator(examples)
    return found


TENSORS = {"grpo": grpo_tensors, "dpo": dpo_tensors}


class Stepping:
    """TRL's training loop, some steps at a time. The loop is TRL's own and does not return in between, so requests that
    come while it runs are answered from its callback."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._base = self._copy()

    def walk(self, request: dict[str, Any]) -> dict[str, float]:
        """Enters the loop at the first request, and leaves it with the process."""
        self._trainer.add_callback(self._callback(self._requests(request)))
        self._trainer.train()
        raise RuntimeError(f"more than {MOST_STEPS} steps were asked for")

    def _requests(self, request: dict[str, Any]) -> Iterator[None]:
        """Resumed after every step of the loop."""
        while True:
            started = time.monotonic()
            for _ in range(request["steps"]):
                yield
                if "keep" in request:
                    self._keep(Path(request["keep"]))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            say({"seconds": time.monotonic() - started, "peak_mib": peak, **SAMPLED})
            for line in sys.stdin:
                request = json.loads(line)
                if "steps" in request:
                    if request.get("afresh"):
                        self._begin_anew()
                    break
                say({"reward": self._heldout_reward(request.get("adapter"))})
            else:
                sys.exit()

    def _trained(self) -> dict[str, Any]:
        return {name: p for name, p in self._trainer.model.named_parameters() if p.requires_grad}

    def _begin_anew(self) -> None:
        self._load(self._base)
        self._trainer.optimizer.state.clear()

    def _load(self, adapter: dict[str, Any]) -> None:
        for name, parameter in self._trained().items():
            parameter.data.copy_(adapter[name])

    def _copy(self) -> dict[str, Any]:
        return {name: p.detach().clone() for name, p in self._trained().items()}

    def _heldout_reward(self, adapter: str | None) -> float:
        from safetensors.torch import load_file

        own = self._copy()
        if adapter:
            self._load(load_file(adapter))
        found = greedy_reward(self._trainer, read("heldout.jsonl"))
        self._load(own)
        return found

    def _keep(self, folder: Path) -> None:
        from safetensors.torch import save_file

        number = self._trainer.state.global_step
        columns = [real(LAST[f"{part}_ids"], LAST[f"{part}_mask"]) for part in ("prompt", "completion")]
        rows = list(zip(*columns, LAST["advantages"].tolist(), strict=True))
        (folder / f"batch-{number}.json").write_text(json.dumps(rows))
        save_file(self._base, folder / "step-0.safetensors")
        save_file(self._copy(), folder / f"step-{number}.safetensors")

    def _callback(self, requests: Iterator[None]) -> Any:
        from transformers import TrainerCallback

        class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                next(requests)

            def on_step_end(self, *_: Any, **__: Any) -> None:
                next(requests)

        return Callback()


def real(ids: Any, mask: Any) -> list[list[int]]:
    """Rows without their padding."""
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def greedy_reward(trainer: Any, rows: list[dict[str, Any]]) -> float:
    import torch

    tokenizer, model = trainer.processing_class, trainer.accelerator.unwrap_model(trainer.model)
    tokenizer.padding_side = "left"
    chats = [row["prompt"] for row in rows]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    ).to(model.device)
    training = model.training
    with torch.inference_mode(), trainer.accelerator.autocast():
        out = model.eval().generate(**inputs, max_new_tokens=COMPLETION_TOKENS, do_sample=False)
    model.train(training)
    answers = out[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    ended = (answers == tokenizer.eos_token_id).any(1).tolist()
    return sum(map(reward_of, texts, ended)) / len(texts)


if __name__ == "__main__":
    main(*sys.argv[1:])
