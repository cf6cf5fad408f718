"""Layers computed once more in the backward, instead of kept: for a row that memory cannot hold and nobody can cut.

Each layer keeps its input alone, [N, hidden]; all else comes back when its backward needs it, one layer at a time. The
same operations on the same numbers, so the same gradient to the last bit, for one more forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(decoder: nn.Module, again: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
    """Within: a forward through transformers' decoder keeps its layers' inputs. `again`: around every layer that is
    computed again; what the forward's own surroundings switched on is switched off by then."""
    layers = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    # Nothing in a layer is random; to keep the generator's state would disturb another run's in this process.
    once_more = partial(
        checkpoint, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again())
    )
    for layer in layers:
        layer.forward = partial(once_more, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the instance's; the class's is back
