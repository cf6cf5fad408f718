"""Axis 1, which x: samplers over a pool of prompts. Their state is one counter, saved in every checkpoint."""

from iterpo.prompt_sampling.uniform import PromptSampler, Sequential, Uniform

PROMPT_SAMPLERS: dict[str, type[PromptSampler]] = {s.name: s for s in (Uniform, Sequential)}

__all__ = ["PROMPT_SAMPLERS", "PromptSampler", "Sequential", "Uniform"]
