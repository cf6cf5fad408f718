"""Axis 1, which x: samplers over a pool of prompts.

A prompt sampler is a frozen dataclass whose draws are a pure function of where the run stands (`Standing`): how many
prompts were drawn and, for those that remember, how the last group of each prompt went. Both are saved with every
checkpoint.
"""

from iterpo.prompt_sampling.adaptive import AdaptiveDifficulty, RewardFilter, Uncertainty
from iterpo.prompt_sampling.standing import PromptSampler, Standing
from iterpo.prompt_sampling.uniform import Curriculum, Sequential, Shard, Uniform

_ALL: tuple[type[PromptSampler], ...] = (
    *(Uniform, Sequential, Shard, Curriculum),
    *(AdaptiveDifficulty, RewardFilter, Uncertainty),
)
PROMPT_SAMPLERS: dict[str, type[PromptSampler]] = {s.name: s for s in _ALL}

__all__ = [
    "PROMPT_SAMPLERS",
    "AdaptiveDifficulty",
    "Curriculum",
    "PromptSampler",
    "RewardFilter",
    "Sequential",
    "Shard",
    "Standing",
    "Uncertainty",
    "Uniform",
]
