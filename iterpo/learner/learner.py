"""What the loop asks of a learner: update, measure, publish, save, load. The loop itself knows no torch."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from iterpo.algorithms import Algorithm
from iterpo.errors import WrongState
from iterpo.learner import checkpoint
from iterpo.learner.batch_record import batch_record
from iterpo.learner.mixture import sample_mixture
from iterpo.learner.policy_model import PolicyModel
from iterpo.learner.trainer import State, Trainer
from iterpo.learner.turns import Turns
from iterpo.policies import manifest, probe
from iterpo.response_sampling import Selection
from iterpo.run_config import RunConfig
from iterpo.types import DOCUMENT, Completion, Example, FinishReason, Group, Preference, Prompt, SamplingSettings


class LoraLearner:
    """One base model, one adapter, one algorithm (implements iterpo.ports.Learner). Threads take turns at the model."""

    def __init__(self, base: Path, algorithm: Algorithm, config: RunConfig) -> None:
        self.model = PolicyModel(base, config.lora, config.seed, config.micro_batch_tokens, config.dtype)
        self.turns, self._tokenizing = Turns(), threading.Lock()
        self.trainer = Trainer(self.model, algorithm, config, self.turns.give_way)
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.base_digest = manifest.digest_model(base)
        self.method = algorithm.name
        self._probe = [_given(ids) for ids in probe.sequences(self.tokenizer)]
        with self.model.base():
            self._probe_base = self._probe_logprobs()

    def serve_as(self, dtype: str) -> None:
        """What the engine that serves merged versions computes in, by torch's name for it."""
        self.model.served_dtype = getattr(torch, dtype)

    def update(self, selection: Selection) -> dict[str, float]:
        with self.turns.taken():
            return self._update(selection)

    def _update(self, selection: Selection) -> dict[str, float]:
        return self.trainer.update(selection)

    def batch(self) -> dict[str, Any]:
        assert self.trainer.trained_on is not None, "update first"
        completions, batch = self.trainer.trained_on
        return batch_record(self.trainer.algorithm, self.trainer.config, completions, batch, self._decode)

    def _decode(self, ids: list[int]) -> str:
        with self._tokenizing:
            return str(self.tokenizer.decode(ids))

    def kl(self, completions: Sequence[Completion], state: State | None = None) -> float:
        with self._at(state):
            return self.model.kl([c for c in completions if c.token_ids])

    def structure(self) -> dict[str, float]:
        with self.turns.taken():
            return self.model.structure()

    def log_ratios(self, completions: Sequence[Completion], state: State | None = None) -> list[float]:
        lengths = [len(c.token_ids) for c in completions]
        with self._at(state):
            current = self.model.logprobs(completions)
            with self.model.base():
                ratio = current - self.model.logprobs(completions)
        return [float(part.sum()) for part in ratio.split(lengths)]

    def mixture(
        self,
        prompts: Sequence[Prompt],
        n: int,
        settings: SamplingSettings,
        share: float,
        version: int,
        state: State | None = None,
    ) -> list[list[Completion]]:
        found = []
        for p, prompt in enumerate(prompts):
            with self._at(state):  # a turn a prompt: tokens are drawn one by one
                found.append([self._mixed(prompt, settings, share, version, f"{p}/{i}") for i in range(n)])
        return found

    @contextmanager
    def _at(self, state: State | None) -> Iterator[None]:
        """Within: the policy has that snapshot's weights, and it is nobody else's turn."""
        with self.turns.taken():
            if state is None:
                yield
                return
            own = self.model.adapter()
            self.model.load_adapter(state[0])
            try:
                with self.model.alone():
                    yield
            finally:
                self.model.load_adapter(own)

    def _mixed(self, prompt: Prompt, settings: SamplingSettings, share: float, version: int, place: str) -> Completion:
        ids = self._prompt_ids(prompt)
        eos, name = self.tokenizer.eos_token_id, uuid.uuid4().hex
        seed = int.from_bytes(hashlib.sha256(f"{settings.seed}/{place}".encode()).digest()[:7], "big")
        made = sample_mixture(self.model, ids, share, settings.temperature, settings.max_tokens, eos, seed)
        return Completion(
            completion_id=name,
            prompt_id=prompt.prompt_id,
            group_id=name,
            text=self.tokenizer.decode(made.token_ids, skip_special_tokens=True),
            prompt_token_ids=ids,
            token_ids=made.token_ids,
            logprobs=made.logprobs,
            finish_reason=FinishReason.STOP if made.token_ids[-1] == eos else FinishReason.LENGTH,
            policy_version=version,
            policy_digest="",
            temperature=settings.temperature,
        )

    def snapshot(self) -> State:
        """Weights and optimiser: a refused update must not live on in the moments either."""
        with self.turns.taken():
            return copy.deepcopy(self.trainer.state())

    def restore(self, snapshot: State) -> None:
        with self.turns.taken():
            self.trainer.restore(snapshot)

    def publish(self, root: Path, version: int, lineage: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        """Write the adapter as a policy version; `lineage` holds parent, run_id, iteration and feedback_cursor."""
        with self.turns.taken():
            with self.model.merged():
                merged = self._probe_logprobs()
            measured = manifest.Probe(
                sequences=tuple(c.prompt_token_ids + c.token_ids for c in self._probe),
                base_logprobs=self._probe_base,
                adapter_logprobs=self._probe_logprobs(),
                merged_logprobs=merged,
            )
            made = manifest.Manifest(
                version, self.base_digest, measured, method=self.method, metrics=dict(metrics), **lineage
            )
            return manifest.publish(root, made, self.model.save_adapter)

    def save(self, directory: Path, state: State | None = None) -> None:
        with self.turns.taken():
            checkpoint.save(directory, *(state or self.trainer.state()))

    def start_from(self, files: Mapping[str, bytes]) -> None:
        """Begin at a published policy's weights. Raises WrongState when its shape is not this run's `lora`."""
        from safetensors.torch import load

        config = json.loads(files["adapter_config.json"])
        wanted = self.model.lora
        if (config["r"], config["lora_alpha"]) != (wanted.r, wanted.alpha):
            raise WrongState(
                f"The serving policy has LoRA r {config['r']}, alpha {config['lora_alpha']}; "
                f"the run asks for r {wanted.r}, alpha {wanted.alpha}.",
                "Set run.lora to the serving policy's, or roll back to the base first.",
                "LORA_MISMATCH",
            )
        self.model.load_adapter(load(files["adapter_model.safetensors"]))

    def load(self, directory: Path) -> None:
        self.restore(checkpoint.load(directory))

    def encode(self, example: Example) -> Group:
        """A group of given answers, as token ids that end with the end-of-sequence token."""
        prompt = example.prompt
        prompt_ids = self._prompt_ids(prompt)
        group_id = f"offline/{prompt.prompt_id}"
        completions = tuple(
            Completion(
                completion_id=f"{group_id}/{i}",
                prompt_id=prompt.prompt_id,
                group_id=group_id,
                text=answer,
                prompt_token_ids=prompt_ids,
                token_ids=self._answer_ids(answer),
                logprobs=(),
                finish_reason=FinishReason.STOP,
                policy_version=0,
                policy_digest="",
            )
            for i, answer in enumerate(example.answers)
        )
        group = Group(group_id, prompt, completions)
        if example.p_first_wins is None:
            return group
        first, second = (c.completion_id for c in completions)
        return replace(group, preferences=(Preference(group_id, first, second, example.p_first_wins),))

    def tokenised(self, group: Group) -> Group:
        """The group with token ids for completions that came as texts (a person's edited answer, an application's
        served one). Ids that a policy sampled are never made anew (invariant 6)."""
        if all(c.token_ids for c in group.completions):
            return group
        prompt_ids = self._prompt_ids(group.prompt)
        return replace(
            group, completions=tuple(c if c.token_ids else self._encoded(c, prompt_ids) for c in group.completions)
        )

    def _encoded(self, completion: Completion, prompt_ids: tuple[int, ...]) -> Completion:
        return replace(
            completion, prompt_token_ids=prompt_ids, token_ids=self._answer_ids(completion.text), logprobs=()
        )

    def _answer_ids(self, answer: str) -> tuple[int, ...]:
        with self._tokenizing:  # a tokenizer that two threads use at once may say that it is borrowed
            return (*self.tokenizer.encode(answer, add_special_tokens=False), self.tokenizer.eos_token_id)

    def _prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """A chat, ready for the answer; of a document the token that texts begin with."""
        if prompt.messages[0].role == DOCUMENT:
            first = self.tokenizer.bos_token_id
            return (self.tokenizer.eos_token_id if first is None else first,)
        chat = [{"role": m.role, "content": m.content} for m in prompt.messages]
        with self._tokenizing:
            return tuple(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    def _probe_logprobs(self) -> tuple[tuple[float, ...], ...]:
        flat = self.model.logprobs(self._probe)
        return tuple(tuple(row.tolist()) for row in flat.split([len(c.token_ids) for c in self._probe]))


def _given(ids: tuple[int, ...]) -> Completion:
    """Token ids whose every token but the first is to be scored."""
    return Completion("probe", "probe", "probe", "", ids[:1], ids[1:], (), FinishReason.STOP, 0, "")
