"""The survey's table: one line a published method, a method being a choice on three axes.

Defaults are the published setting, or the one its reference code ships; `source` says whose. A run overrides single
fields through iterpo.toml (`iterpo.run_config`); `resolve` applies the overrides and `check` refuses combinations that
cannot work or mean nothing, with a sentence that names the fix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from iterpo.errors import InvalidConfig, nearest
from iterpo.gradient_coefficient import (
    COEFFICIENTS,
    MISMATCH,
    NORMALIZERS,
    Apo,
    AStarPo,
    Balance,
    Bco,
    Cispo,
    Coefficient,
    Constant,
    Cpo,
    Dft,
    Dpo,
    Dpop,
    Exo,
    Gmpo,
    Grpo,
    Gspo,
    Ipo,
    Kl,
    Kto,
    LengthDpo,
    Mirror,
    Mpo,
    NashMd,
    Nca,
    Normalizer,
    OffsetDpo,
    Orpo,
    PassAtK,
    PerSequence,
    PerToken,
    PolicyGradient,
    Ppo,
    Reinforce,
    Rloo,
    Sapo,
    SequenceSum,
    Sft,
    Simpo,
    Slic,
    SlicHf,
    Sppo,
    Tdpo,
    Tipo,
    Xpo,
)
from iterpo.prompt_sampling import PROMPT_SAMPLERS, PromptSampler, Uncertainty, Uniform
from iterpo.regularizers import ClippedValueLoss, ReferenceKl, Regularizer
from iterpo.response_sampling import (
    RESPONSE_SAMPLERS,
    ActivePair,
    BestWorst,
    GeometricRival,
    GreedyBaseline,
    GroupSampler,
    OfflineCompletions,
    OfflinePairs,
    OneFromEach,
    RandomPair,
    Rationalise,
    ReferenceBaseline,
    Rejection,
    Replay,
    ResponseSampler,
    RightWrong,
)
from iterpo.run_config import RunConfig

REFERENCES = ("none", "base", "previous_iterate")
"""`base`: the adapter switched off. `previous_iterate`: a frozen copy of the adapter as the iteration began."""
MEASURED = frozenset({"values", "mismatched", "reference_kl"})
"""Needs that the learner meets by itself."""


@dataclass(frozen=True)
class Algorithm:
    name: str
    source: str
    response_sampling: ResponseSampler
    gradient_coefficient: Coefficient
    normalizer: Normalizer
    reference: str = "none"
    prompt_sampling: PromptSampler = Uniform()
    kl: Kl = Kl()
    replay: Replay = Replay()
    regularizers: tuple[Regularizer, ...] = ()
    mismatch: str = "none"
    """Correction of the trainer/sampler mismatch, for policy gradients."""
    off_policy_mask: float = 0.0
    learning_rate: float = 1e-5
    """Published for LoRA where there is one, else ten times the published one for full fine-tuning."""
    critic_learning_rate: float = 0.0
    """The same for the critic's adapter and head; zero for methods without one."""
    prompts_per_iteration: int = 8
    epochs: int = 1
    """Passes over an iteration's batch."""
    minibatches: int = 1
    """Optimiser steps an epoch."""
    restart: bool = False
    """Whether every iteration's update begins at the base once more."""
    lacks: str = ""
    """What of the paper this row does not do."""

    @property
    def needs_reference(self) -> bool:
        return "reference" in self.gradient_coefficient.needs or bool(self.kl.beta)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every number of the method, axis by axis."""
        axes = ("prompt_sampling", "response_sampling", "gradient_coefficient", "normalizer", "kl", "replay")
        named = {axis: getattr(self, axis) for axis in axes}
        numbers = {n: getattr(self, n) for n in SCALARS} | {"mismatch": self.mismatch}
        numbers |= {axis: asdict(value) for axis, value in named.items()}
        return numbers | {r.name: asdict(r) for r in self.regularizers}  # type: ignore[call-overload]


SCALARS = ("learning_rate", "prompts_per_iteration", "epochs", "minibatches", "critic_learning_rate", "off_policy_mask")

PG = partial(Algorithm, mismatch="tis")
ONE = GroupSampler(1, uniform="keep")
ONE_KL = Kl(0.05, "k1", "reward")
SUM, TOKEN, SEQUENCE = SequenceSum(), PerToken(), PerSequence()
OFFLINE = OfflinePairs()
PREVIOUS = "previous_iterate"

# fmt: off
ALGORITHMS = (
    # Maximum likelihood and rejection
    Algorithm("pretrain", "maximum likelihood on documents ({\"text\": ...}); learning rate as sft", OfflineCompletions(), Sft(), TOKEN, learning_rate=2e-4, lacks="packing across documents"),
    Algorithm("sft", "maximum likelihood; learning rate TRL 2e-5 x 10", OfflineCompletions(), Sft(), TOKEN, learning_rate=2e-4, lacks="packing across documents"),
    Algorithm("dft", "arXiv:2508.05629", OfflineCompletions(), Dft(), TOKEN, learning_rate=5e-4, prompts_per_iteration=256),
    Algorithm("rft", "arXiv:2308.01825", Rejection(8, "above"), Sft(), TOKEN, learning_rate=2e-4),
    Algorithm("raft", "arXiv:2304.06767", Rejection(8, "best"), Sft(), TOKEN, learning_rate=2e-4),
    Algorithm("rest", "arXiv:2308.08998", Rejection(32, "above", 0.7, rise=0.1), Sft(), TOKEN, learning_rate=2e-4, epochs=3),
    Algorithm("star", "arXiv:2203.14465", Rationalise(1, "above"), Sft(), TOKEN, learning_rate=2e-4, prompts_per_iteration=64, epochs=8, restart=True, lacks="more steps in every iteration than in the one before"),
    # Policy gradients
    PG("reinforce", "Williams 1992; baseline: the batch's mean", ONE, Reinforce("batch_centred"), SUM, prompts_per_iteration=64),
    PG("rloo", "arXiv:2402.14740; TRL", GroupSampler(4), Rloo(), SUM, "base", kl=ONE_KL),
    PG("remax", "arXiv:2310.10505", GreedyBaseline(1), Reinforce("over_baseline"), SUM, "base", kl=ONE_KL, prompts_per_iteration=64),
    PG("reinforce_pp", "arXiv:2501.03262; OpenRLHF", ONE, Grpo("whitened"), TOKEN, "base", kl=Kl(0.01, "k1", "reward"), prompts_per_iteration=128),
    PG("reinforce_pp_baseline", "arXiv:2501.03262", GroupSampler(4), Grpo("two_step"), TOKEN, "base", kl=Kl(0.01, "k2"), prompts_per_iteration=32),
    PG("ppo", "arXiv:1707.06347; TRL's settings", ONE, Ppo(), TOKEN, "base", kl=ONE_KL, regularizers=(ClippedValueLoss(),), learning_rate=3e-5, critic_learning_rate=3e-5, prompts_per_iteration=64, epochs=4),
    PG("grpo", "arXiv:2402.03300; group 64", GroupSampler(64), Grpo(), SEQUENCE, "base", kl=Kl(0.04, "k3"), learning_rate=4e-5),
    PG("dr_grpo", "arXiv:2503.20783", GroupSampler(8), Grpo("centred"), Constant(), learning_rate=4e-5),
    PG("dapo", "arXiv:2503.14476", GroupSampler(16, refill=3), Grpo(clip_high=0.28, overlong_fraction=0.2), TOKEN, learning_rate=4e-5),
    PG("gspo", "arXiv:2507.18071", GroupSampler(8), Gspo(), SEQUENCE, minibatches=4, lacks="the GSPO-token variant"),
    PG("gmpo", "arXiv:2507.20673", GroupSampler(8), Gmpo(), SUM, minibatches=4),
    PG("cispo", "arXiv:2506.13585; cap 5 (ScaleRL, TRL)", GroupSampler(8), Cispo(), TOKEN, minibatches=4),
    PG("cispo_verl", "arXiv:2506.13585; verl's clip", GroupSampler(8), Cispo(floor=0.8, cap=1.2), TOKEN, minibatches=4),
    PG("sapo", "arXiv:2511.20347", GroupSampler(8), Sapo(), SEQUENCE, minibatches=4),
    PG("vapo", "arXiv:2504.05118", GroupSampler(16, uniform="keep"), Ppo(clip_high=0.28, lam=0.0, critic_lam=1.0, positive_nll=0.1), TOKEN, regularizers=(ClippedValueLoss(),), learning_rate=1e-5, critic_learning_rate=2e-5, lacks="value pre-training as a phase of its own"),
    PG("kimi", "arXiv:2501.12599", GroupSampler(8), Mirror(), SUM, minibatches=4, lacks="the length reward; the report's own curriculum (choose one in prompt_sampling)"),
    PG("opo", "arXiv:2505.23585", GroupSampler(8), Reinforce("length_weighted"), TOKEN),
    PG("gpg", "arXiv:2504.02546; verl's scale", GroupSampler(8), Reinforce("rescaled"), TOKEN),
    PG("pass_at_k", "arXiv:2508.10751", GroupSampler(8), PassAtK(), TOKEN),
    Algorithm("astar_po", "A*-PO; METHODS section 3", ReferenceBaseline(8), AStarPo(), SUM, "base", prompts_per_iteration=64, lacks="V* kept from one measurement before training"),
    Algorithm("ctb", "arXiv:2605.00553", RandomPair(2), Balance(), SUM, replay=Replay(16), prompts_per_iteration=64, lacks="noisy-gradient pruning, Min-K fluency"),
    # Preferences, given
    Algorithm("offline_dpo", "arXiv:2305.18290", OFFLINE, Dpo(0.1), SUM, "base", prompts_per_iteration=64),
    Algorithm("cdpo", "DPO with flipped labels, e 0.1", OFFLINE, Dpo(0.1, label_smoothing=0.1), SUM, "base", prompts_per_iteration=64),
    Algorithm("robust_dpo", "arXiv:2403.00409", OFFLINE, Dpo(0.1, label_smoothing=0.1, robust=True), SUM, "base", prompts_per_iteration=64),
    Algorithm("ipo", "arXiv:2310.12036; mean form (TRL)", OFFLINE, Ipo(), SUM, "base", prompts_per_iteration=64),
    Algorithm("ipo_sum", "arXiv:2310.12036; sum form (OpenRLHF)", OFFLINE, Ipo(mean=False), SUM, "base", prompts_per_iteration=64),
    Algorithm("slic", "arXiv:2305.10425; hinge of TRL and oat", OFFLINE, Slic(), SUM, "base", prompts_per_iteration=64),
    Algorithm("slic_hf", "arXiv:2305.10425; original, HALOs", OFFLINE, SlicHf(), SUM, prompts_per_iteration=64),
    Algorithm("simpo", "arXiv:2405.14734", OFFLINE, Simpo(), SUM, prompts_per_iteration=128),
    Algorithm("orpo", "arXiv:2403.07691", OFFLINE, Orpo(), SUM, learning_rate=5e-5, prompts_per_iteration=64),
    Algorithm("cpo", "arXiv:2401.08417", OFFLINE, Cpo(), SUM, prompts_per_iteration=64),
    Algorithm("dpop", "arXiv:2402.13228", OFFLINE, Dpop(), SUM, "base", prompts_per_iteration=64),
    Algorithm("r_dpo", "arXiv:2403.19159", OFFLINE, LengthDpo(alpha=0.05), SUM, "base", prompts_per_iteration=64),
    Algorithm("ln_dpo", "arXiv:2411.15124; open-instruct", OFFLINE, LengthDpo(5.0, normalised=True), SUM, "base", prompts_per_iteration=64),
    Algorithm("ld_dpo", "arXiv:2409.06411", OFFLINE, LengthDpo(tail=0.5), SUM, "base", prompts_per_iteration=64),
    Algorithm("tdpo1", "arXiv:2404.11999; TDPO1", OFFLINE, Tdpo(version=1), SUM, "base", regularizers=(ReferenceKl(),), prompts_per_iteration=64),
    Algorithm("tdpo2", "arXiv:2404.11999; TDPO2", OFFLINE, Tdpo(), SUM, "base", regularizers=(ReferenceKl(),), prompts_per_iteration=64),
    Algorithm("exo", "arXiv:2402.00856", OFFLINE, Exo(), SUM, "base", prompts_per_iteration=64, lacks="more than two answers"),
    Algorithm("nca", "arXiv:2402.05369", OFFLINE, Nca(), SUM, "base", learning_rate=5e-5, prompts_per_iteration=64, lacks="more than two answers"),
    Algorithm("apo_zero", "arXiv:2408.06266", OFFLINE, Apo(), SUM, "base", prompts_per_iteration=64),
    Algorithm("apo_down", "arXiv:2408.06266", OFFLINE, Apo(down=True), SUM, "base", prompts_per_iteration=64),
    Algorithm("bco", "arXiv:2404.04656", OFFLINE, Bco(), SUM, "base", prompts_per_iteration=64, lacks="a running delta; the density ratio of prompts"),
    Algorithm("kto", "arXiv:2402.01306", OFFLINE, Kto(), SUM, "base", prompts_per_iteration=64),
    Algorithm("mpo", "arXiv:2411.10442", OFFLINE, Mpo(), SUM, "base", learning_rate=5e-5, prompts_per_iteration=256),
    Algorithm("tipo", "arXiv:2604.11559; form inferred", OFFLINE, Tipo(), SUM, "base", prompts_per_iteration=64, lacks="alignment of steps between trajectories"),
    Algorithm("odpo", "arXiv:2402.10571", OFFLINE, OffsetDpo(), SUM, "base", prompts_per_iteration=64, lacks="scores; the label's strength stands for their difference"),
    # Preferences, online
    Algorithm("iterative_dpo", "arXiv:2405.07863", BestWorst(8), Dpo(0.1, label_smoothing=0.1), SUM, PREVIOUS, learning_rate=5e-6, prompts_per_iteration=128, epochs=2),
    Algorithm("online_dpo", "arXiv:2402.04792 (OAIF)", RandomPair(2), Dpo(0.1), SUM, "base", learning_rate=5e-6, prompts_per_iteration=64),
    Algorithm("self_rewarding", "arXiv:2401.10020", BestWorst(4), Dpo(0.1), SUM, PREVIOUS, learning_rate=1e-6, prompts_per_iteration=64, lacks="the judge: name the policy's own as the run's labeler; self-made prompts"),
    Algorithm("iterative_rpo", "arXiv:2404.19733", RightWrong(8), Dpo(0.1, nll=1.0), SUM, PREVIOUS, learning_rate=7e-6, prompts_per_iteration=16),
    Algorithm("sppo", "arXiv:2405.00675", BestWorst(5), Sppo(), SUM, PREVIOUS, learning_rate=5e-6, prompts_per_iteration=64, lacks="win rates over all K answers: the pair's own label is used"),
    Algorithm("dno", "arXiv:2404.03715", BestWorst(5, min_margin=0.25), Dpo(0.1), SUM, PREVIOUS, learning_rate=5e-6, prompts_per_iteration=64, lacks="the teacher's answers; its margin is on another scale than rewards in [0, 1]"),
    Algorithm("xpo", "arXiv:2405.21046; TRL's alpha", OneFromEach(), Xpo(0.1), SUM, "base", learning_rate=5e-6, prompts_per_iteration=64),
    Algorithm("nash_md", "arXiv:2312.00886", GeometricRival(), NashMd(), SUM, "base", learning_rate=5e-6, prompts_per_iteration=64),
    Algorithm("apl", "arXiv:2402.08114", ActivePair(4), Dpo(0.1), SUM, "base", Uncertainty("entropy"), learning_rate=5e-6, prompts_per_iteration=64),
)
# fmt: on

TABLE: dict[str, Algorithm] = {a.name: a for a in ALGORITHMS}
ALIASES = {"dpo": "offline_dpo"}


def find(name: str) -> Algorithm:
    """Raises InvalidConfig for an unknown name."""
    known = TABLE.get(ALIASES.get(name, name))
    if known is None:
        raise InvalidConfig(f"Unknown algorithm {name!r}.", _suggest(name, {**TABLE, **ALIASES}))
    return known


def resolve(config: RunConfig) -> Algorithm:
    """The algorithm that a run's configuration means. Raises InvalidConfig for unknown names, fields and triples."""
    base = find(config.algorithm)
    mismatch = base.mismatch if config.mismatch is None else config.mismatch
    if mismatch not in MISMATCH:
        raise InvalidConfig(f"Unknown mismatch correction {mismatch!r}.", _suggest(mismatch, MISMATCH))
    algorithm = replace(
        base,
        prompt_sampling=_choose(base.prompt_sampling, config.prompt_sampling, PROMPT_SAMPLERS, "prompt_sampling"),
        response_sampling=_choose(
            base.response_sampling, config.response_sampling, RESPONSE_SAMPLERS, "response_sampling"
        ),
        gradient_coefficient=_choose(
            base.gradient_coefficient, config.gradient_coefficient, COEFFICIENTS, "gradient_coefficient"
        ),
        normalizer=_choose(base.normalizer, config.normalizer, NORMALIZERS, "normalizer"),
        kl=_fields(base.kl, config.kl, "kl"),
        replay=_fields(base.replay, config.replay, "replay"),
        mismatch=mismatch,
        **{n: value for n in SCALARS if (value := getattr(config, n)) is not None},
    )
    check(algorithm)
    return algorithm


def check(algorithm: Algorithm) -> None:
    """Raise InvalidConfig unless the parts of an algorithm fit each other."""
    _check_needs(algorithm)
    _check_group(algorithm)
    _check_measured(algorithm)
    _check_orthogonal(algorithm)


def _check_group(algorithm: Algorithm) -> None:
    """Enough own answers a prompt for the baseline, or for pass@k."""
    sampler, coefficient = algorithm.response_sampling, algorithm.gradient_coefficient
    if sampler.offline:
        return
    sampled = sum(draw.n for draw in sampler.draws if draw.policy == "serving" and not draw.greedy)
    least = max(2 if coefficient.needs_a_group else 1, getattr(coefficient, "k", 1))
    if sampled < least:
        raise InvalidConfig(
            f"Gradient coefficient {coefficient.name!r} needs {least} answers of the policy a prompt, and response "
            f"sampling {sampler.name!r} draws {sampled}.",
            f"Set response_sampling.size to {least} or more, or use another response sampling.",
            "IMPOSSIBLE_TRIPLE",
        )


def _check_measured(algorithm: Algorithm) -> None:
    """What the learner measures by itself, it can measure."""
    coefficient = algorithm.gradient_coefficient
    names = {r.name for r in algorithm.regularizers}
    for need, regularizer in (("values", ClippedValueLoss.name), ("reference_kl", ReferenceKl.name)):
        if need in coefficient.needs and regularizer not in names:
            able = ", ".join(a.name for a in ALGORITHMS if any(r.name == regularizer for r in a.regularizers))
            raise InvalidConfig(
                f"Gradient coefficient {coefficient.name!r} needs the regularizer {regularizer!r}, which algorithm "
                f"{algorithm.name!r} does not have.",
                f"Use one of the algorithms that do: {able}.",
                "IMPOSSIBLE_TRIPLE",
            )
    if coefficient.needs & {"mismatched", "reference_kl"} and algorithm.reference != "base":
        raise InvalidConfig(
            f"Gradient coefficient {coefficient.name!r} is measured against the base, and the reference of algorithm "
            f"{algorithm.name!r} is another one.",
            "Use an algorithm whose reference is the base.",
            "IMPOSSIBLE_TRIPLE",
        )
    if "mismatched" in coefficient.needs and algorithm.prompts_per_iteration < 2:
        raise InvalidConfig(
            f"Gradient coefficient {coefficient.name!r} needs answers to other prompts.",
            "Set prompts_per_iteration to 2 or more.",
            "IMPOSSIBLE_TRIPLE",
        )
    sampler = algorithm.response_sampling
    if sampler.name == "dueling" and not getattr(sampler, "judges", ()):
        raise InvalidConfig(
            "Dueling needs an ensemble of judges.",
            'Name labelers: [run.response_sampling] ensemble = "model_a, model_b".',
            "NO_JUDGES",
        )
    if algorithm.prompt_sampling.remembers and algorithm.response_sampling.offline:
        raise InvalidConfig(
            f"Prompt sampling {algorithm.prompt_sampling.name!r} looks at how groups went, and given data has none.",
            "Use uniform, sequential, shard or curriculum.",
            "IMPOSSIBLE_TRIPLE",
        )


def _check_needs(algorithm: Algorithm) -> None:
    """The coefficient's needs are met by the response sampler and the reference."""
    sampler, coefficient = algorithm.response_sampling, algorithm.gradient_coefficient
    provided = sampler.provides | MEASURED | ({"reference"} if algorithm.reference != "none" else set())
    needs = coefficient.needs | ({"reference"} if algorithm.kl.beta else set())
    missing = needs - provided
    if not missing:
        return
    able = [name for name, s in RESPONSE_SAMPLERS.items() if missing - {"reference"} <= s.provides]
    fixes = [f"a response sampling that gives {', '.join(sorted(missing - {'reference'}))} ({', '.join(able)})"]
    if "reference" in missing:
        fixes = [f"an algorithm with a reference ({', '.join(a.name for a in ALGORITHMS if a.reference != 'none')})"]
    what = f"Gradient coefficient {coefficient.name!r}" if missing - {"reference"} else "KL or the coefficient"
    raise InvalidConfig(
        f"{what} needs {', '.join(sorted(missing))}, which response sampling "
        f"{sampler.name!r} in algorithm {algorithm.name!r} does not give.",
        f"Use {fixes[0]}, or another gradient coefficient.",
        "IMPOSSIBLE_TRIPLE",
    )


def _check_orthogonal(algorithm: Algorithm) -> None:
    """Normalizer, KL and correction mean something beside this coefficient."""
    coefficient, kl = algorithm.gradient_coefficient, algorithm.kl
    if coefficient.normalizers and algorithm.normalizer.name not in coefficient.normalizers:
        allowed = ", ".join(sorted(coefficient.normalizers))
        raise InvalidConfig(
            f"Gradient coefficient {coefficient.name!r} sums over a sequence by itself: under normalizer "
            f"{algorithm.normalizer.name!r} it would be another method.",
            f"Use normalizer {allowed}.",
            "IMPOSSIBLE_NORMALIZER",
        )
    gradient = isinstance(coefficient, PolicyGradient)
    if kl.beta and kl.place == "reward" and (not gradient or coefficient.name == "pass_at_k"):
        raise InvalidConfig(
            f"KL in the reward has no effect on {coefficient.name!r}: its advantage is no sum of rewards.",
            'Use kl.place = "coefficient", or kl.beta = 0.',
            "KL_WITHOUT_EFFECT",
        )
    if not gradient and "rewards" not in coefficient.needs and (algorithm.mismatch != "none"):
        raise InvalidConfig(
            f"A correction of the trainer/sampler mismatch has no meaning for {coefficient.name!r}: likelihoods of "
            "given answers are no expectation under the sampler.",
            'Use mismatch = "none".',
            "CORRECTION_WITHOUT_MEANING",
        )
    if algorithm.off_policy_mask and not gradient:
        raise InvalidConfig(
            f"The off-policy mask looks at advantages, and {coefficient.name!r} has none.",
            "Remove off_policy_mask.",
            "CORRECTION_WITHOUT_MEANING",
        )
    if algorithm.replay.groups and algorithm.response_sampling.offline:
        raise InvalidConfig(
            "Given data is used again and again anyway: there is nothing to replay.",
            "Remove [run.replay].",
            "CORRECTION_WITHOUT_MEANING",
        )
    if algorithm.critic_learning_rate and "values" not in coefficient.needs:
        raise InvalidConfig(
            f"{coefficient.name!r} has no critic.", "Remove critic_learning_rate.", "CORRECTION_WITHOUT_MEANING"
        )


def _choose(default: Any, overrides: Mapping[str, Any], known: Mapping[str, type], axis: str) -> Any:
    """The axis's default with single fields overridden, or another member of the axis by `name`."""
    values = dict(overrides)
    name = values.pop("name", default.name)
    if not isinstance(name, str) or name not in known:
        raise InvalidConfig(f"Unknown {axis} {name!r}.", _suggest(str(name), known))
    return _fields(default if name == default.name else known[name](), values, axis)


TYPES: Mapping[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def _fields(default: Any, overrides: Mapping[str, Any], axis: str) -> Any:
    """A frozen dataclass with single fields overridden, each of its own type."""
    types = {f.name: str(f.type) for f in fields(default)}
    unknown = [key for key in overrides if key not in types]
    if unknown:
        name = getattr(default, "name", axis)
        raise InvalidConfig(f"Unknown key {unknown[0]!r} for {axis} {name!r}.", f"Its keys are: {_listed(types)}.")
    values = dict(overrides)
    for key, value in overrides.items():
        if types[key] == "int" and isinstance(value, float) and value.is_integer():
            values[key] = int(value)  # numbers of a JSON Struct are all floats
        elif not isinstance(value, TYPES[types[key]]) or (isinstance(value, bool) and types[key] != "bool"):
            raise InvalidConfig(f"{axis}.{key} = {value!r} is not {types[key]}.", "Mend its type.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidConfig(f"{axis}.{key} = {value!r} is not a finite number.", "Use a finite one.")
    return replace(default, **values)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    near = nearest(name, known)
    return (f"Did you mean {near!r}? " if near else "") + f"Use one of: {', '.join(known)}."
