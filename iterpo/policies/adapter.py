"""What may be served as a LoRA adapter, checked before any engine sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iterpo.errors import PolicyRejected

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    rank: int
    alpha: float
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """Module name in the base model -> (A [r, in], B [out, r])."""

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


def parse(files: Mapping[str, bytes], max_rank: int) -> Adapter:
    """Read verified adapter files. Raises PolicyRejected: UNSERVABLE_ADAPTER, NON_FINITE or ALL_ZERO."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        config = json.loads(files["adapter_config.json"])
        tensors = load(files["adapter_model.safetensors"])
    except (ValueError, SafetensorError) as error:
        raise _unservable(f"its files cannot be read ({error})") from error
    _check_config(config, max_rank)
    _check_numbers(tensors)
    return Adapter(config["r"], float(config["lora_alpha"]), _pairs(tensors))


def _check_config(config: dict[str, Any], max_rank: int) -> None:
    if config.get("peft_type") != "LORA":
        raise _unservable(f"it is of type {config.get('peft_type')!r}, not LORA")
    if config.get("use_dora") or config.get("modules_to_save") or config.get("bias", "none") != "none":
        raise _unservable("it uses DoRA, modules_to_save or bias, which vLLM cannot serve")
    if config.get("use_rslora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise _unservable("it uses rslora or per-module ranks, which the merge does not implement")
    if not 1 <= config.get("r", 0) <= max_rank:
        raise _unservable(f"its rank {config.get('r')} is not within 1..{max_rank} (inference.max_lora_rank)")


def _check_numbers(tensors: Mapping[str, Tensor]) -> None:
    broken = [name for name, t in tensors.items() if not t.isfinite().all()]
    if broken:
        raise PolicyRejected(
            f"{len(broken)} tensors hold NaN or infinity, {broken[0]} among them.",
            "Training diverged: roll back and lower the learning rate.",
            "NON_FINITE",
        )
    if not any(bool(t.any()) for name, t in tensors.items() if ".lora_B." in name):
        raise PolicyRejected(
            "Every B matrix is zero: the adapter changes nothing.",
            "Nothing was learned, or the wrong adapter was saved: check the run's gradient norm.",
            "ALL_ZERO",
        )


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {}
    for name, tensor in tensors.items():
        if not name.startswith(PREFIX) or not (".lora_A." in name or ".lora_B." in name):
            raise _unservable(f"it holds {name}, which is no LoRA matrix")
        if ".lora_A." in name:
            other = tensors.get(name.replace(".lora_A.", ".lora_B."))
            if other is None:
                raise _unservable(f"{name} has no B matrix")
            pairs[name.removeprefix(PREFIX).split(".lora_A.")[0]] = (tensor, other)
    return pairs


def _unservable(why: str) -> PolicyRejected:
    return PolicyRejected(
        f"The adapter cannot be served: {why}.",
        "Train plain LoRA on linear layers, within max_lora_rank.",
        "UNSERVABLE_ADAPTER",
    )
