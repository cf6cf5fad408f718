"""Ask a method what it does to every token: a batch as JSON in (`batch_json`), coefficients and gradients out.

The same function computes what the learner trains on (`iterpo.gradient.token_gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from iterpo.algorithms import Algorithm, resolve
from iterpo.batch_json import is_stranger, needs, parse, spread, token_batch
from iterpo.errors import InvalidConfig, InvalidInput, nearest
from iterpo.run_config import RunConfig


def explain(method: str, batch: Any, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `method` does to `batch` (the module's JSON, parsed): `method`, `parameters`, `needs`, `normalizer`,
    `coefficients` and `gradient` (a list a sequence), `objective`, `metrics`; for TDPO also `reference_kl_gradient`.

    `settings` overrides parameters by name, as text: {"beta": "0.2"}, {"normalizer": "per_token"}, {"kl.beta": "0"}.
    Raises InvalidInput, naming field and row, and InvalidConfig for unknown parameters and impossible combinations.
    """
    algorithm = configured(method, settings or {})
    rows = parse(batch)
    own = [row for row in rows if not is_stranger(algorithm, row)]
    given = token_batch(algorithm, rows, batch)
    from iterpo.gradient import prepared, terms, token_gradient

    given = prepared(algorithm, given)
    found = token_gradient(algorithm, given)
    output = {
        "method": algorithm.name,
        "parameters": parameters(algorithm),
        "needs": sorted(needs(algorithm)),
        "normalizer": algorithm.normalizer.name,
        "coefficients": spread(rows, own, found.coefficients),
        "gradient": spread(rows, own, found.gradient),
        "formula": algorithm.gradient_coefficient.formula,
        "terms": {name: spread(rows, own, each) for name, each in terms(algorithm, given).items()},
        "objective": float(found.objective),
        "metrics": found.metrics,
    }
    if found.reference_kl is not None:
        output["reference_kl_gradient"] = spread(rows, own, found.reference_kl)
    if not _finite(output):
        raise InvalidInput(
            f"The gradient of {method!r} is not finite on this batch.",
            "Look for log-probs of zero and for ratios beyond the range of numbers.",
            "NOT_FINITE",
        )
    return output


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def parameters(algorithm: Algorithm) -> dict[str, Any]:
    """Every number that the coefficients depend on."""
    own = asdict(algorithm.gradient_coefficient)  # type: ignore[call-overload]  # coefficients are dataclasses
    kl = {f"kl.{k}": v for k, v in asdict(algorithm.kl).items()} if algorithm.kl.beta else {}
    correction = {"mismatch": algorithm.mismatch} if algorithm.mismatch != "none" else {}
    mask = {"off_policy_mask": algorithm.off_policy_mask} if algorithm.off_policy_mask else {}
    return {**own, **kl, **correction, **mask}


def configured(method: str, settings: Mapping[str, str]) -> Algorithm:
    """The method with parameters overridden. A bare name is looked for in the coefficient, then in the KL."""
    base = resolve(RunConfig(algorithm=method))
    own = asdict(base.gradient_coefficient)  # type: ignore[call-overload]
    config: dict[str, Any] = {"algorithm": method}
    for name, text in settings.items():
        axis, _, key = name.rpartition(".")
        if name in ("mismatch", "off_policy_mask"):
            config[name] = _value(text)
        elif name == "normalizer":
            config["normalizer"] = {"name": text}
        elif axis in ("gradient_coefficient", "kl"):
            config.setdefault(axis, {})[key] = _value(text)
        elif not axis and name in own:
            config.setdefault("gradient_coefficient", {})[name] = _value(text)
        elif not axis and name in asdict(base.kl):
            config.setdefault("kl", {})[name] = _value(text)
        else:
            known = [*own, *(f"kl.{k}" for k in asdict(base.kl)), "normalizer", "mismatch", "off_policy_mask"]
            near = nearest(name, known)
            raise InvalidInput(
                f"Method {method!r} has no parameter {name!r}.",
                (f"Did you mean {near!r}? " if near else "") + f"Set one of: {', '.join(known)}.",
                "UNKNOWN_PARAMETER",
            )
    try:
        return resolve(RunConfig(**config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidConfig(f"{place}: {first['msg']}.", "Set another value.") from error


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
