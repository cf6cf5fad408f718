"""One vLLM engine: the only file that knows vLLM's API (0.32; each behaviour relied on has a contract test)."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from iterpo.config import InferenceSettings
from iterpo.errors import InvalidInput, Unavailable
from iterpo.types import FinishReason, SamplingSettings
from services.inference import leash
from services.torch_environment import set_defaults

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

BATCHED_TOKENS = 4096
"""Prefill tokens of one engine step. Prompts are never cut (see `arguments`), so it is at least the context."""
CPU_BLOCK_TOKENS = 32
"""Of a block of the cache of keys and values: prompts that begin alike share whole blocks. The fewest that vLLM's
attention takes on CPUs; its own 128 are more than a chat's system prompt and question (docs/serving.md)."""
GPU_MEMORY_SHARE = 0.9
"""vLLM's default, for all engines of a service together."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()
    """Of each token's place, (token id, log-prob) of the likeliest tokens, when they were asked for."""


class Engine(Protocol):
    def generate(
        self,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        seed: int | None,
        lora: Any,
        stream: bool,
        likeliest: int = 0,
    ) -> AsyncGenerator[Chunk, None]: ...

    async def score(self, token_ids: Sequence[int], lora: Any) -> list[float]: ...

    async def load_merged(self, base: Path, adapter: Path | None, max_rank: int) -> None: ...


class VllmEngine:
    def __init__(
        self, model: Path, settings: InferenceSettings, lora_slots: int, device: str, engines: int = 1
    ) -> None:
        """Blocks for half a minute. `lora_slots` 0 switches adapter slots off (they cost speed even when unused).
        `engines`: how many share the device."""
        set_environment(settings, device)
        leash.hold()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments(model, settings, lora_slots, device, engines))
        )
        self._ids = itertools.count()

    async def generate(
        self,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        seed: int | None,
        lora: Any,
        stream: bool,
        likeliest: int = 0,
    ) -> AsyncGenerator[Chunk, None]:
        """Chunks of an answer as they come, or (not `stream`) one chunk. Leaving the iterator aborts the request."""
        parameters = _parameters(settings, seed, stream, likeliest)
        async with aclosing(self._outputs(prompt_ids, parameters, lora)) as outputs:
            async for output in outputs:
                part = output.outputs[0]
                rows = part.logprobs or ()
                chosen = [row[token].logprob for row, token in zip(rows, part.token_ids, strict=False)]
                top = tuple(_likeliest(row, likeliest) for row in rows) if likeliest else ()
                reason = FinishReason(_REASONS.get(part.finish_reason, "aborted")) if part.finish_reason else None
                yield Chunk(part.text, tuple(part.token_ids), tuple(chosen), reason, top)

    async def score(self, token_ids: Sequence[int], lora: Any) -> list[float]:
        """Nats of every token but the first, at temperature 1."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=1.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        rows: Any = None
        async for output in self._outputs(token_ids, parameters, lora):
            rows = output.prompt_logprobs
        if rows is None:
            raise Unavailable("The engine ended the request without an answer.", "Try again.", "REQUEST_ABORTED")
        return [row[token].logprob for row, token in zip(rows[1:], token_ids[1:], strict=True)]

    async def _outputs(self, ids: Sequence[int], parameters: Any, lora: Any) -> AsyncGenerator[Any, None]:
        from vllm.v1.engine.exceptions import EngineDeadError

        request_id = f"r{next(self._ids)}"
        prompt = {"prompt_token_ids": list(ids)}
        try:
            async with aclosing(self._llm.generate(prompt, parameters, request_id, lora_request=lora)) as outputs:
                async for output in outputs:
                    yield output
        except EngineDeadError as error:
            raise Unavailable("The engine died.", "The supervisor restarts it: try again in a minute.") from error
        except ValueError as error:
            raise InvalidInput(f"The engine refused the request: {error}.", "Change the sampling settings.") from error

    async def load_merged(self, base: Path, adapter: Path | None, max_rank: int) -> None:
        """Replace all weights by the base's, with an adapter's folded in. Nothing may be in flight."""
        arguments = (str(base), str(adapter or ""), max_rank)
        await self._llm.collective_rpc("load_merged", args=arguments)
        if not await self._llm.reset_prefix_cache():
            raise Unavailable(
                "The engine still held keys and values of the old weights after a reload.",
                "Load the policy again.",
                "CACHE_IN_USE",
            )

    async def weights_digest(self) -> str:
        """SHA-256 of what the engine holds."""
        return "".join(await self._llm.collective_rpc("weights_digest"))

    async def add_lora(self, lora: LoRARequest) -> None:
        await self._llm.add_lora(lora)

    async def remove_lora(self, lora: LoRARequest) -> None:
        await self._llm.remove_lora(lora.lora_int_id)
        await self._llm.collective_rpc("give_back_memory")

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    def shutdown(self) -> None:
        self._llm.shutdown()


def _likeliest(row: Mapping[int, Any], count: int) -> tuple[tuple[int, float], ...]:
    """vLLM gives the chosen token too, whatever its rank."""
    ranked = sorted(row.items(), key=lambda entry: -entry[1].logprob)
    return tuple((token, float(entry.logprob)) for token, entry in ranked[:count])


def _parameters(settings: SamplingSettings, seed: int | None, stream: bool, likeliest: int) -> Any:
    """vLLM's form of our settings. Raises InvalidInput for what vLLM refuses."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    try:
        return SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens,
            stop=list(settings.stop) or None,
            seed=seed,
            logprobs=likeliest,
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
    except ValueError as error:
        raise InvalidInput(f"The engine refuses these settings: {error}.", "Change the sampling settings.") from error


_REASONS: Mapping[Any, str] = {"stop": "stop", "length": "length", "abort": "aborted"}


def set_environment(settings: InferenceSettings, device: str) -> None:
    """vLLM is configured through the environment; a composition root may write it. Values of the user's stay."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
    if device == "cpu":
        defaults["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib)
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    set_defaults(**defaults)


def dtype_name(settings: InferenceSettings, device: str) -> str:
    """What an engine computes in, by torch's name."""
    from iterpo.precision import compute_dtype  # torch must not be loaded before its environment is set

    return str(compute_dtype(settings.dtype, "cuda" if device == "gpu" else "cpu")).removeprefix("torch.")


def arguments(
    model: Path, settings: InferenceSettings, lora_slots: int, device: str, engines: int = 1
) -> dict[str, Any]:
    """What the engine is started with."""
    common: dict[str, Any] = {
        "model": str(model),
        "dtype": dtype_name(settings, device),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "logprobs_mode": "processed_logprobs",  # invariant 7: of the distribution that was sampled
        "disable_log_stats": True,
        # A seeded request whose prompt is prefilled in parts crashes vllm-cpu 0.32 ("CPU Generator does not use
        # offset"), so prompts are always prefilled whole.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(BATCHED_TOKENS, settings.max_model_len),
        "enforce_eager": device == "cpu",
        "worker_extension_cls": "services.inference.worker.Worker",
    }
    if device == "cpu":
        from services.inference.cpu_waiting import CpuExecutor  # vLLM must not be loaded before its environment is set

        common |= {"block_size": CPU_BLOCK_TOKENS, "distributed_executor_backend": CpuExecutor}
    if device == "gpu":
        common["gpu_memory_utilization"] = GPU_MEMORY_SHARE / engines
    if lora_slots:
        slots = {"max_loras": lora_slots, "max_cpu_loras": lora_slots + 2, "max_lora_rank": settings.max_lora_rank}
        # Without a list vLLM wraps the head too, and vllm-cpu 0.32 dies of prompt log-probs beside other LoRA requests.
        common |= {"enable_lora": True, "lora_target_modules": linear_modules(model), **slots}
    return common


def linear_modules(model: Path) -> list[str]:
    """Names of the linear modules of a model's layers: what an adapter may target. Never the head or the embedding."""
    from safetensors import safe_open

    names = set()
    for shard in model.glob("*.safetensors"):
        with safe_open(shard, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (not a dict)
                if ".layers." in name and name.endswith(".weight") and len(weights.get_slice(name).get_shape()) == 2:
                    names.add(name.split(".")[-2])
    return sorted(names)


def find_device(wanted: str) -> str:
    """`cpu` or `gpu`. Raises nothing: a wrong wish fails when the engine starts, in vLLM's words."""
    if wanted != "auto":
        return wanted
    from vllm.platforms import current_platform

    return "cpu" if current_platform.is_cpu() else "gpu"
