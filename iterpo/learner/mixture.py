"""Sampling from the geometric mixture of policy and base, token by token: Nash-MD's rival (arXiv:2312.00886).

    log p(y_t | ...) = (1 - share) log pi(y_t | ...) + share log ref(y_t | ...) - log Z_t

No engine offers this, so the learner does it with two key-value caches over one set of weights, one prompt at a time:
slower than inference by far, and exact. At a temperature, the mixture's logits are divided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iterpo.precision import wide

if TYPE_CHECKING:
    from iterpo.learner.policy_model import PolicyModel


@dataclass(frozen=True)
class Drawn:
    token_ids: tuple[int, ...]
    """With the end-of-sequence token where it was drawn."""
    logprobs: tuple[float, ...]
    """Of the mixture, nats."""


@torch.no_grad()
def sample_mixture(
    model: PolicyModel, prompt: Sequence[int], share: float, temperature: float, max_tokens: int, eos: int, seed: int
) -> Drawn:
    """One answer to a prompt of token ids; `share` 0 is the policy, 1 the base."""
    draw = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    logprobs: list[float] = []
    policy, base = _Reader(model), _Reader(model)
    fed = torch.tensor([list(prompt)], device=model.device)
    while len(tokens) < max_tokens and eos not in tokens[-1:]:
        own = policy.read(fed)
        with model.base():
            reference = base.read(fed)
        log_p = (((1 - share) * own + share * reference) / temperature).log_softmax(-1).cpu()
        token = int(torch.multinomial(log_p.exp(), 1, generator=draw))
        tokens.append(token)
        logprobs.append(float(log_p[token]))
        fed = torch.tensor([[token]], device=model.device)
    return Drawn(tuple(tokens), tuple(logprobs))


class _Reader:
    """What one of the two has read so far."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        self._cache: Any = None

    def read(self, ids: Tensor) -> Tensor:
        """[vocabulary] log-probs of the next token after `ids`, which follow what was read before."""
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._model.mixed):
            out = self._model.decoder(input_ids=ids, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        logits: Tensor = out.last_hidden_state[0, -1] @ self._model.head.weight.T
        return wide(logits).log_softmax(-1)
