"""The survey's table: one line a published method, a method being a choice on three axes.

Defaults are the published setting, or the one its reference code ships; `source` says whose. A run overrides single
fields through iterpo.toml (`iterpo.run_config`); `resolve` applies the overrides and `check` refuses triples that
cannot work, with a sentence that names the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from iterpo.errors import InvalidConfig
from iterpo.gradient_coefficient import (
    COEFFICIENTS,
    MISMATCH,
    NORMALIZERS,
    Coefficient,
    Constant,
    Dpo,
    Grpo,
    Normalizer,
    PerSequence,
    PerToken,
    SequenceSum,
    Sft,
)
from iterpo.prompt_sampling import PROMPT_SAMPLERS, PromptSampler, Uniform
from iterpo.response_sampling import (
    RESPONSE_SAMPLERS,
    BestWorst,
    GroupSampler,
    OfflineCompletions,
    OfflinePairs,
    RandomPair,
    Rejection,
    ResponseSampler,
)
from iterpo.run_config import RunConfig

REFERENCES = ("none", "base", "previous_iterate")
"""`base`: the adapter switched off. `previous_iterate`: a frozen copy of the adapter as the iteration began."""


@dataclass(frozen=True)
class Algorithm:
    name: str
    source: str
    response_sampling: ResponseSampler
    gradient_coefficient: Coefficient
    normalizer: Normalizer
    reference: str = "none"
    prompt_sampling: PromptSampler = Uniform()
    learning_rate: float = 1e-5
    """Published for LoRA where there is one, else ten times the published one for full fine-tuning."""
    prompts_per_iteration: int = 8
    epochs: int = 1
    """Passes over an iteration's batch."""
    minibatches: int = 1
    """Optimiser steps an epoch."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Every number of the method, axis by axis."""
        axes = ("prompt_sampling", "response_sampling", "gradient_coefficient", "normalizer")
        numbers = {n: getattr(self, n) for n in ("learning_rate", "prompts_per_iteration", "epochs", "minibatches")}
        return numbers | {axis: asdict(getattr(self, axis)) for axis in axes}


# fmt: off
ALGORITHMS = (
    Algorithm("sft", "maximum likelihood; learning rate TRL 2e-5 x 10", OfflineCompletions(), Sft(), PerToken(), learning_rate=2e-4),
    Algorithm("rft", "arXiv:2308.01825", Rejection(8, "above"), Sft(), PerToken(), learning_rate=2e-4),
    Algorithm("grpo", "arXiv:2402.03300; group 64", GroupSampler(64), Grpo(), PerSequence(), "base", learning_rate=4e-5),
    Algorithm("dr_grpo", "arXiv:2503.20783", GroupSampler(8), Grpo("centred", beta=0.0), Constant(), learning_rate=4e-5),
    Algorithm("dapo", "arXiv:2503.14476", GroupSampler(16, refill=3), Grpo(clip_high=0.28, beta=0.0, overlong_fraction=0.2), PerToken(), learning_rate=4e-5),
    Algorithm("offline_dpo", "arXiv:2305.18290", OfflinePairs(), Dpo(0.1), SequenceSum(), "base", prompts_per_iteration=64),
    Algorithm("iterative_dpo", "arXiv:2405.07863", BestWorst(8), Dpo(0.1, label_smoothing=0.1), SequenceSum(), "previous_iterate", learning_rate=5e-6, prompts_per_iteration=128, epochs=2),
    Algorithm("online_dpo", "arXiv:2402.04792 (OAIF)", RandomPair(2), Dpo(0.1), SequenceSum(), "base", learning_rate=5e-6, prompts_per_iteration=64),
)
# fmt: on

TABLE: dict[str, Algorithm] = {a.name: a for a in ALGORITHMS}


def resolve(config: RunConfig) -> Algorithm:
    """The algorithm that a run's configuration means. Raises InvalidConfig for unknown names, fields and triples."""
    base = TABLE.get(config.algorithm)
    if base is None:
        raise InvalidConfig(f"Unknown algorithm {config.algorithm!r}.", _suggest(config.algorithm, TABLE))
    if config.mismatch not in MISMATCH:
        raise InvalidConfig(f"Unknown mismatch correction {config.mismatch!r}.", _suggest(config.mismatch, MISMATCH))
    names = ("learning_rate", "prompts_per_iteration", "epochs", "minibatches")
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
        **{n: value for n in names if (value := getattr(config, n)) is not None},
    )
    check(algorithm)
    return algorithm


def check(algorithm: Algorithm) -> None:
    """Raise InvalidConfig unless the coefficient's needs are met by the response sampler and the reference."""
    sampler, coefficient = algorithm.response_sampling, algorithm.gradient_coefficient
    provided = sampler.provides | ({"reference"} if algorithm.reference != "none" else set())
    missing = coefficient.needs - provided
    if not missing:
        return
    able = [name for name, s in RESPONSE_SAMPLERS.items() if missing - {"reference"} <= s.provides]
    fixes = [f"a response sampling that gives {', '.join(sorted(missing - {'reference'}))} ({', '.join(able)})"]
    if "reference" in missing:
        fixes = [f"an algorithm with a reference ({', '.join(a.name for a in ALGORITHMS if a.reference != 'none')})"]
    raise InvalidConfig(
        f"Gradient coefficient {coefficient.name!r} needs {', '.join(sorted(missing))}, which response sampling "
        f"{sampler.name!r} in algorithm {algorithm.name!r} does not give.",
        f"Use {fixes[0]}, or another gradient coefficient.",
        "IMPOSSIBLE_TRIPLE",
    )


def _choose(default: Any, overrides: Mapping[str, Any], known: Mapping[str, type], axis: str) -> Any:
    """The axis's default with single fields overridden, or another member of the axis by `name`."""
    values = dict(overrides)
    name = values.pop("name", default.name)
    if not isinstance(name, str) or name not in known:
        raise InvalidConfig(f"Unknown {axis} {name!r}.", _suggest(str(name), known))
    valid = [f.name for f in fields(known[name])]
    unknown = [key for key in values if key not in valid]
    if unknown:
        allowed = ", ".join(valid) or "none"
        raise InvalidConfig(f"Unknown key {unknown[0]!r} for {axis} {name!r}.", f"Its keys are: {allowed}.")
    kept = asdict(default) if name == default.name else {}
    for field in fields(known[name]):
        value = values.get(field.name)
        wants_int = field.type in ("int", int)
        if wants_int and isinstance(value, float) and value.is_integer():
            values[field.name] = int(value)  # numbers of a JSON Struct are all floats
        elif value is not None and not isinstance(
            value, int if wants_int else str if field.type == "str" else int | float
        ):
            raise InvalidConfig(f"{axis}.{field.name} = {value!r} is not {field.type}.", "Mend its type.")
    return known[name](**{**kept, **values})


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"Use one of: {', '.join(known)}."
