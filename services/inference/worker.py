"""What iterpo adds to vLLM's worker, in the engine's own process (vLLM's `worker_extension_cls`)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from vllm.platforms import current_platform

from iterpo.policies import adapter as adapters
from iterpo.policies.manifest import ADAPTER_FILES
from iterpo.policies.merge import merged_weights
from services.inference.memory import give_back

if current_platform.is_cpu():
    import services.inference.cpu_lora  # noqa: F401  (gives the platform another way to apply slots)


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
        self.reload_weights(weights_iterator=merged_weights(Path(base), made))  # type: ignore[attr-defined]  # vLLM's
        give_back()

    def give_back_memory(self) -> None:
        """After adapters came and went."""
        give_back()

    def weights_digest(self) -> str:
        """SHA-256 of every parameter, in order of their names, as the engine holds them now."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.model_runner.get_model().named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
