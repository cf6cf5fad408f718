"""What transformers says of the same weights: greedy answers, how close its decisions were, and log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Reference:
    """The base with a published adapter. `merged`: folded in float32 and rounded once to the engine's `dtype`, as
    delivered; otherwise applied beside the base."""

    def __init__(self, base: Path, policy: Path, dtype: torch.dtype, merged: bool) -> None:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32 if merged else dtype)
        model = PeftModel.from_pretrained(model, str(policy), autocast_adapter_dtype=False)
        model = model.merge_and_unload() if merged else model
        for weight in model.parameters():  # not model.to(): rotary frequencies are buffers, and stay in float32
            weight.data = weight.data.to(dtype)
        self.model = model.eval()

    @torch.inference_mode()
    def greedy(self, prompt_ids: Sequence[int], answer: Sequence[int]) -> tuple[list[int], list[float]]:
        """[T] its own choice after every prefix of `answer`, and by how many nats it preferred that to `answer`'s.

        As long as the choices are the answer's own, they are what greedy decoding gives."""
        logprobs = self._logprobs(prompt_ids, answer, 1.0)
        best = logprobs.max(-1)
        given = logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0]
        return best.indices.tolist(), (best.values - given).tolist()

    @torch.inference_mode()
    def logprobs(self, prompt_ids: Sequence[int], answer: Sequence[int], temperature: float = 1.0) -> list[float]:
        """[T] nats of the answer's tokens."""
        table = self._logprobs(prompt_ids, answer, temperature)
        return table.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()

    def _logprobs(self, prompt_ids: Sequence[int], answer: Sequence[int], temperature: float) -> torch.Tensor:
        """[T, vocabulary] at every position of the answer."""
        ids = torch.tensor([[*prompt_ids, *answer]])
        logits = self.model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
        return (logits.float() / temperature).log_softmax(-1)
