"""What iterpo adds to vLLM's worker, in the engine's own process (vLLM's `worker_extension_cls`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from vllm.platforms import current_platform

from iterpo.policies import adapter as adapters
from iterpo.policies.manifest import ADAPTER_FILES
from iterpo.policies.merge import merged_weights
from iterpo.preload import give_back
from services.inference import leash

if current_platform.is_cpu():
    # Each gives vLLM something else for CPUs: how to apply slots, norms, how to wait.
    import services.inference.cpu_lora
    import services.inference.cpu_norm
    import services.inference.cpu_waiting  # noqa: F401

# Here and not when the service asks: it may have ended before the engine could hear it.
leash.follow()

READ_ROWS = 256


class Worker:
    """Mixed into vLLM's worker; each method is called by `AsyncLLM.collective_rpc`."""

    model_runner: Any
    """vLLM's."""

    def load_merged(self, base: str, adapter: str, max_rank: int) -> None:
        """Replace all weights by the base's with the adapter folded in; by the base's alone without one.

        `adapter`: a directory with its two files, or empty. Nothing may be in flight.
        """
        made = None
        if adapter:
            made = adapters.parse({name: (Path(adapter) / name).read_bytes() for name in ADAPTER_FILES}, max_rank)
        weights = merged_weights(Path(base), made, self.model_runner.model_config.dtype)
        self.reload_weights(weights_iterator=weights)  # type: ignore[attr-defined]  # vLLM's
        give_back()

    def give_back_memory(self) -> None:
        """After adapters came and went."""
        give_back()

    def weights_digest(self) -> str:
        """SHA-256 of every weight as the engine holds it now, in the order of names."""
        digest = hashlib.sha256()
        model = self.model_runner.get_model()
        for name, parameter in sorted(model.named_parameters()):
            digest.update(name.encode())
            digest.update(_bytes(parameter.detach()))
        for name, layer in sorted(model.named_modules()):
            if _is_packed(layer):
                digest.update(name.encode())
                for columns in _read_back(layer):
                    digest.update(_bytes(columns))
        return digest.hexdigest()


def _is_packed(layer: Any) -> bool:
    """Whether vLLM keeps a linear layer's weight in a form of the product's library, and an empty parameter for it, as
    it does on CPUs."""
    return hasattr(layer, "cpu_linear") and hasattr(layer, "input_size_per_partition") and not layer.weight.numel()


@torch.no_grad()
def _read_back(layer: Any) -> Iterator[torch.Tensor]:
    """A packed weight's columns, in parts: its products with the unit vectors, to the last bit, since all else that is
    added is zero. Takes a forward pass over as many tokens as the layer is wide."""
    width, dtype = layer.input_size_per_partition, layer.weight.dtype
    for start in range(0, width, READ_ROWS):
        unit = torch.zeros(min(READ_ROWS, width - start), width, dtype=dtype)
        unit[torch.arange(len(unit)), torch.arange(start, start + len(unit))] = 1
        yield layer.quant_method.apply(layer, unit)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes()
