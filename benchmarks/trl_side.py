"""TRL's side of the learner's comparison: `python -m benchmarks.trl_side MODEL`, asked by benchmarks.learner.

Runs with TRL's own packages on the path (benchmarks.learner installs them apart from ours). An update is what
GRPOTrainer does with completions that it has: its loss, the backward, clipping and the optimiser's step.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from typing import Any

from benchmarks.child import serve_parent
from benchmarks.learner_task import GROUPS, LEARNING_RATE, LORA_ALPHA, LORA_RANK, SIZE, Task, task

PIECE_TOKENS = 8192
"""Of one forward and backward, padding included: the whole task, with prompts of 64 tokens."""


def main(base: str) -> None:
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    folder = tempfile.mkdtemp()
    settings = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=GROUPS * SIZE,
        num_generations=SIZE,
        learning_rate=LEARNING_RATE,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=base,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        # With a name of its own: to make one up, datasets 5.2 pickles what pyarrow 26 cannot be pickled with.
        train_dataset=Dataset(InMemoryTable.from_pydict({"prompt": ["x"] * GROUPS}), fingerprint="task"),
        peft_config=LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.create_optimizer()
    model = trainer.model.train()
    pad = trainer.processing_class.pad_token_id

    def answer(request: dict[str, Any]) -> dict[str, float]:
        inputs = tensors(task(request["prompt_tokens"]), pad, trainer.accelerator.device)
        pieces = cut(inputs)
        trainer.current_gradient_accumulation_steps = len(pieces)
        started = time.monotonic()
        for piece in pieces:
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, piece)
            trainer.accelerator.backward(loss)
        trainer.accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        seconds = time.monotonic() - started
        return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    serve_parent(answer)


def tensors(given: Task, pad: int, device: Any) -> dict[str, Any]:
    """The task as TRL pads it, with group-normalised advantages."""
    import torch

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


def cut(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """In pieces whose gradients are added up, as gradient accumulation does: 64 sequences of 560 tokens do not fit into
    24 GB at once."""
    width = inputs["prompt_ids"].shape[1] + inputs["completion_ids"].shape[1]
    rows = max(SIZE, PIECE_TOKENS // width // SIZE * SIZE)
    total = len(inputs["prompt_ids"])
    parts = {name: value.split(rows) if value.ndim else [value] * -(-total // rows) for name, value in inputs.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


if __name__ == "__main__":
    main(sys.argv[1])
