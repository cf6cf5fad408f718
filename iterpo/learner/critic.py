"""A critic on the policy's own base: its own LoRA adapter and a linear head from hidden state to value.

V_t is read at the position that predicts token t, so it is the value of the state before that token. The base's weights
are shared with the policy: a critic costs an adapter, not a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iterpo.types import Completion

if TYPE_CHECKING:
    from iterpo.learner.policy_model import Adapter, PolicyModel

NAME = "critic"


class Critic:
    """`values` and `backward` take completions and speak of their tokens flat, in order: [B]."""

    def __init__(self, model: PolicyModel) -> None:
        self._model = model
        model.add_adapter(NAME)
        width = model.head.weight.shape[1]
        dtype = torch.float32 if model.mixed else model.head.weight.dtype
        # Zero: the first values are the mean reward's distance from nothing, not noise that advantages would contain.
        self._head = torch.nn.Parameter(torch.zeros(width + 1, dtype=dtype, device=model.device))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self._model.adapter_parameters(NAME), self._head]

    def values(self, completions: Sequence[Completion]) -> Tensor:
        """[B]."""
        with self._active():
            return self._model.measured(completions, self._of)

    def backward(self, completions: Sequence[Completion], slopes: Tensor) -> None:
        """The gradient of (slopes * values).sum(), over all ranks, into adapter and head; slopes are [B]."""
        per_completion = slopes.split([len(c.token_ids) for c in completions])

        def share() -> None:
            for parameter in self.parameters:
                parameter.grad = None
            for batch in self._model.team.own(self._model.micro_batches(completions)):
                weight = torch.cat([per_completion[i] for i in batch]).to(self._model.device)
                self._of([completions[i] for i in batch]).backward(weight)

        with self._active(), torch.enable_grad():
            self._model.budget.within_memory(share)
        self._model.add_up_gradients(self.parameters)

    def weights(self) -> Adapter:
        """A copy of adapter and head."""
        adapter = {f"adapter.{k}": v for k, v in self._model.adapter(NAME).items()}
        return adapter | {"head": self._head.detach().clone()}

    def load_weights(self, weights: Adapter) -> None:
        adapter = {k.removeprefix("adapter."): v for k, v in weights.items() if k != "head"}
        self._model.load_adapter(adapter, NAME)
        with torch.no_grad():
            self._head.copy_(weights["head"])

    def _of(self, chosen: Sequence[Completion]) -> Tensor:
        """[b] values of one micro-batch's tokens."""
        hidden = self._model.selected(chosen)[0].to(self._head.dtype)
        values: Tensor = hidden @ self._head[:-1] + self._head[-1]
        return values

    @contextmanager
    def _active(self) -> Iterator[None]:
        with self._model.using(NAME):
            yield
