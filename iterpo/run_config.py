"""The `[run]` section of iterpo.toml: one run of one algorithm. Loads no torch, so the command line may read it.

Fields left at None take the algorithm's published default (iterpo/algorithms.py). The axis tables override single
fields of the algorithm's own choice, or name another one: `[run.response_sampling] name = "group"  size = 8`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from iterpo.types import RUN


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(_Section):
    """The adapter. Targets are all linear layers; DoRA, bias and embedding targets cannot be served by vLLM."""

    r: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1)


class GateConfig(_Section):
    """What a candidate must show before it may serve."""

    labeler: str = ""
    """Who judges held-out answers: a name, or `none`. Empty: the run's labeler, or `none` when that is `people`."""
    min_heldout_gain: float = -0.05
    """Held-out reward of the candidate minus that of the serving version; below it the candidate is refused."""
    max_kl: float = Field(2.0, gt=0)
    """Nats a token to the base model, exact over the vocabulary, at some 512 tokens of the candidate's held-out
    answers."""
    min_win_rate: float = Field(0.4, ge=0, le=1)
    """Refused when it wins, with 95 % confidence, less than this share of the held-out prompts (ties half)."""
    min_slice_gain: float = -0.15
    """As min_heldout_gain, of every slice: prompts whose ids share what stands before a slash (`math/12`)."""
    min_gold_gain: float = -0.5
    """As min_heldout_gain, of every single held-out prompt whose id begins with `gold/`."""
    max_length_ratio: float = Field(2.0, gt=0)
    """Tokens of the candidate's held-out answers over the serving version's."""
    max_unfinished_gain: float = Field(0.5, ge=0)
    """Growth of the share of held-out answers that are cut at max_tokens."""
    max_refusal_gain: float = Field(0.25, ge=0)
    """Growth of the share of held-out answers that refuse, by their words."""
    max_same_answer_gain: float = Field(0.5, ge=0)
    """Growth of the share of held-out prompts that get one and the same text."""
    max_relative_norm: float = Field(0.05, gt=0)
    """Frobenius norm of the update over that of the weights that it changes: 0.0007 to 0.005 in the demo's runs."""
    min_stable_rank: float = Field(0.0, ge=0)
    """Mean over modules of the update's squared Frobenius over its squared spectral norm, from 1 to the adapter's rank.
    0: any."""


class ReplayOf(_Section):
    """Set by `iterpo run replay`: which run is trained again, from where, and whose feedback stays out."""

    run_id: str
    first_iteration: int = Field(ge=1)
    version: int = Field(ge=0)
    """The policy version before that iteration: where the replay starts."""
    without: tuple[str, ...] = ()
    """Annotators."""


class RunConfig(_Section):
    algorithm: str = "grpo"
    labeler: str = "one_friendly_sentence"
    """A name from `[labelers]`, a built-in verifier, or `people`."""
    prompts: str = ""
    """JSON Lines file: {"prompt": "..."} or {"messages": [...]}, optional "id" and "answer". Empty: the demo's."""
    heldout: str = ""
    """The same for the gate's held-out prompts."""
    pairs: str = ""
    """JSON Lines file of prompt/chosen/rejected (for `offline_dpo`) or prompt/completion (for `sft`)."""
    value: str = ""
    """With pairs that name `values`: learn what this one prefers. Empty: chosen over rejected, as the file says."""
    min_consistency: float | None = Field(None, ge=0, le=1)
    """With pairs that name `values`: leave out those whose values agree less than this (cosine with all-ones)."""
    beside: bool = False
    """Serve this run's versions under its own name, `run/NAME`, and leave what serves alone: for runs side by side.
    Needs inference.delivery = "adapter" and inference.run_slots."""
    iterations: int = Field(10, ge=1)
    seed: int = 0
    prompts_per_iteration: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(48, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    epochs: int | None = Field(None, ge=1)
    minibatches: int | None = Field(None, ge=1)
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    micro_batch_tokens: int | None = Field(None, ge=64)
    """Tokens of one forward and backward, a prompt counted once for all its answers there; bounds memory, changes no
    gradient but in its last digits. Unset: what free memory allows, 768 on CPUs at most, more for all answers to one
    long prompt. Halved when memory runs out."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the learner computes in; `auto`: bfloat16 where the hardware multiplies it, else float32."""
    mismatch: str | None = None
    """Correction of the trainer/sampler mismatch of a policy gradient: `none`, `tis`, `mis`, `sequence_tis` or
    `sequence_mask`."""
    off_policy_mask: float | None = Field(None, gt=0)
    """Leave out sequences with a negative advantage whose mean log(sampler/policy) exceeds this (DeepSeek-V3.2)."""
    entropy: float = Field(0.0, ge=0)
    """Weight of an exact entropy bonus, nats a token: a regularizer beside the three axes."""
    critic_learning_rate: float | None = Field(None, gt=0)
    """Of methods with a critic (`ppo`, `vapo`)."""
    ahead: int = Field(0, ge=0, le=64)
    """Iterations that may be sampled and labelled before the learner takes them. 0: one thing after the other, bit for
    bit the same with the same seed. From 1 on, sampling, labeling, learning and publishing go on at the same time, and
    answers are `ahead` versions old when they are used, one more where judging takes longer than learning."""
    max_policy_age: int = Field(4, ge=0)
    """Older policy-gradient samples are dropped and counted; pairs are used at any age. In version numbers, which runs
    side by side share: allow twice the age for two of them."""
    feedback_timeout_seconds: float = Field(600.0, gt=0)
    """How long an iteration waits for its labels before it trains on what there is."""
    prompt_sampling: dict[str, Any] = Field(default_factory=dict)
    response_sampling: dict[str, Any] = Field(default_factory=dict)
    gradient_coefficient: dict[str, Any] = Field(default_factory=dict)
    normalizer: dict[str, Any] = Field(default_factory=dict)
    kl: dict[str, Any] = Field(default_factory=dict)
    """KL to the reference by sample: `beta`, `estimator` (k1, k2, k3, ratio_k3), `place` (coefficient, reward)."""
    replay: dict[str, Any] = Field(default_factory=dict)
    """Earlier groups once more: `groups` an iteration, of at most `max_age` policy versions."""
    replay_of: ReplayOf | None = None
    """Set by `iterpo run replay`, not by hand."""
    lora: LoraConfig = LoraConfig()
    gate: GateConfig = GateConfig()

    def policy(self, run_id: str) -> str:
        """What the run samples from, and compares its candidates with."""
        return f"{RUN}{run_id}" if self.beside else "serving"

    @property
    def judge(self) -> str:
        """The labeler of held-out answers; `none` when nobody judges them, because people cannot answer at once."""
        return self.gate.labeler or ("none" if self.labeler == "people" else self.labeler)
