"""Ask a method what it does to every token: a batch written down as JSON in, coefficients and gradients out.

    {"sequences": [{"group": "p1", "role": "chosen", "reward": 1.0, "strength": 1.0, "truncated": false,
                    "logprobs": [-1.2, -0.3], "reference_logprobs": [-1.0, -0.4], "behaviour_logprobs": [-1.1, -0.3],
                    "values": null, "mask": [1, 1]}],
     "normalizer_constant": null}

Behaviour log-probs are what the importance ratio divides by; without them the batch counts as on-policy. Optional,
and needed by the methods that say so: "old_logprobs" (the trainer's own at the start of the iteration; the ratio then
divides by them and the sampler's enter the correction), "reference_kl" (TDPO), "baseline" (ReMax, A*-PO),
"from_reference" (XPO, Nash-MD), "p_chosen" and "weight" (of a chosen answer's pair), "tokens" (texts, for display).
Pairs: the k-th chosen of a group with its k-th rejected. A role of null is, for KTO, an answer to another prompt.
`normalizer_constant` is the longest allowed answer, in tokens: Dr. GRPO's constant, and the limit of overlong shaping.

Numbers are float64; the same function computes what the learner trains on (`iterpo.gradient.token_gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from iterpo.algorithms import Algorithm, resolve
from iterpo.errors import InvalidConfig, InvalidInput
from iterpo.gradient_coefficient import TokenBatch
from iterpo.run_config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor

PER_TOKEN = ("logprobs", "reference_logprobs", "behaviour_logprobs", "old_logprobs", "values", "reference_kl")
NUMBERS = ("reward", "strength", "baseline", "p_chosen", "weight")
FLAGS = ("truncated", "from_reference")
KEYS = {"group", "role", "mask", "tokens", *PER_TOKEN, *NUMBERS, *FLAGS}
TOP_KEYS = {"sequences", "normalizer_constant"}
ROLES: Mapping[Any, int] = {"chosen": 1, "rejected": -1, None: 0}


def explain(method: str, batch: Any, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `method` does to `batch` (the module's JSON, parsed): `method`, `parameters`, `needs`, `normalizer`,
    `coefficients` and `gradient` (a list a sequence), `objective`, `metrics`; for TDPO also `reference_kl_gradient`.

    `settings` overrides parameters by name, as text: {"beta": "0.2"}, {"normalizer": "per_token"}, {"kl.beta": "0"}.
    Raises InvalidInput, naming field and row, and InvalidConfig for unknown parameters and impossible combinations.
    """
    algorithm = configured(method, settings or {})
    rows = parse(batch)
    own = [row for row in rows if not _stranger(algorithm, row)]
    given = token_batch(algorithm, rows, batch.get("normalizer_constant"))
    from iterpo.gradient import prepared, token_gradient

    found = token_gradient(algorithm, prepared(algorithm, given))
    output = {
        "method": algorithm.name,
        "parameters": parameters(algorithm),
        "needs": sorted(needs(algorithm)),
        "normalizer": algorithm.normalizer.name,
        "coefficients": _spread(rows, own, found.coefficients),
        "gradient": _spread(rows, own, found.gradient),
        "objective": float(found.objective),
        "metrics": found.metrics,
    }
    if found.reference_kl is not None:
        output["reference_kl_gradient"] = _spread(rows, own, found.reference_kl)
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


def _stranger(algorithm: Algorithm, row: Mapping[str, Any]) -> bool:
    """For a method that compares with mismatched answers (KTO), a sequence without a role is one, and no more."""
    return "mismatched" in algorithm.gradient_coefficient.needs and row["role"] is None


def needs(algorithm: Algorithm) -> frozenset[str]:
    """What a batch must say for this method."""
    return algorithm.gradient_coefficient.needs | ({"reference"} if algorithm.kl.beta else frozenset())


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
            near = get_close_matches(name, known, n=1)
            raise InvalidInput(
                f"Method {method!r} has no parameter {name!r}.",
                (f"Did you mean {near[0]!r}? " if near else "") + f"Set one of: {', '.join(known)}.",
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


def parse(batch: Any) -> list[dict[str, Any]]:
    """The batch's rows, every list checked against the row's length. Raises InvalidInput with field and row."""
    if not isinstance(batch, Mapping) or not isinstance(batch.get("sequences"), Sequence):
        raise _bad("The batch", "must be an object with a list `sequences`")
    if unknown := set(batch) - TOP_KEYS:
        raise _bad("The batch", f"has the unknown key `{min(unknown)}`", f"Use {', '.join(sorted(TOP_KEYS))}.")
    if not batch["sequences"]:
        raise _bad("sequences", "is empty", "Give at least one sequence.")
    return [_row(raw, i) for i, raw in enumerate(batch["sequences"])]


def _row(raw: Any, index: int) -> dict[str, Any]:
    place = f"sequences[{index}]"
    if not isinstance(raw, Mapping):
        raise _bad(place, "is no object")
    if unknown := set(raw) - KEYS:
        raise _bad(place, f"has the unknown field `{min(unknown)}`", f"Fields are: {', '.join(sorted(KEYS))}.")
    row = {key: raw.get(key) for key in KEYS}
    if not isinstance(row["group"], str) or not row["group"]:
        raise _bad(f"{place}.group", "is missing or empty", "Name the prompt that the sequence answers.")
    if not isinstance(row["role"], str | None) or row["role"] not in ROLES:
        raise _bad(f"{place}.role", f"is {row['role']!r}", "Use chosen, rejected or null.")
    length = len(row["logprobs"]) if isinstance(row["logprobs"], list) else 0
    if not length:
        raise _bad(f"{place}.logprobs", "is missing or empty", "Give one number a token.")
    for key in (*PER_TOKEN, "mask", "tokens"):
        _check_list(row[key], length, f"{place}.{key}", texts=key == "tokens")
    for key in NUMBERS:
        if row[key] is not None and not _is_number(row[key]):
            raise _bad(f"{place}.{key}", f"is {row[key]!r}, not a finite number")
    for key in FLAGS:
        if row[key] not in (None, True, False):
            raise _bad(f"{place}.{key}", f"is {row[key]!r}", "Use true, false or null.")
    _check_ranges(row, place)
    return row


def _check_ranges(row: Mapping[str, Any], place: str) -> None:
    mask = row["mask"]
    if mask is not None and (any(m not in (0, 1) for m in mask) or not any(mask)):
        raise _bad(f"{place}.mask", "must hold zeros and ones, with a one among them")
    for key in ("logprobs", "reference_logprobs", "behaviour_logprobs", "old_logprobs"):
        high = [v for v in row[key] or () if v > 0]
        if high:
            raise _bad(f"{place}.{key}", f"holds {high[0]}: log-probs are at most 0")
    if row["p_chosen"] is not None and not 0 <= row["p_chosen"] <= 1:
        raise _bad(f"{place}.p_chosen", f"is {row['p_chosen']}", "Use a probability.")
    for key in ("strength", "weight"):
        if row[key] is not None and row[key] < 0:
            raise _bad(f"{place}.{key}", f"is {row[key]}", "Use a number >= 0.")


def _check_list(values: Any, length: int, place: str, texts: bool) -> None:
    if values is None:
        return
    if not isinstance(values, list) or len(values) != length:
        count = len(values) if isinstance(values, list) else "no list of"
        raise _bad(place, f"has {count} entries, but logprobs has {length}", "Give one entry a token.")
    wrong = [v for v in values if not (isinstance(v, str) if texts else _is_number(v))]
    if wrong:
        raise _bad(place, f"holds {wrong[0]!r}, not a {'text' if texts else 'finite number'}")


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def token_batch(algorithm: Algorithm, rows: Sequence[Mapping[str, Any]], constant: Any) -> TokenBatch:
    """The rows as tensors, masked tokens left out. Raises InvalidInput for what the method needs and a row lacks."""
    import torch

    _check_needs(algorithm, rows)
    strangers = [row for row in rows if _stranger(algorithm, row)]
    rows = [row for row in rows if not _stranger(algorithm, row)]
    if constant is not None and (not _is_number(constant) or constant <= 0 or constant != int(constant)):
        raise _bad("normalizer_constant", f"is {constant!r}", "Use the longest allowed answer, in tokens, or null.")
    names = list(dict.fromkeys(row["group"] for row in rows))
    chosen, rejected = _pairs(rows) if "pairs" in needs(algorithm) else ([], [])
    lengths = torch.tensor([len(_kept(row)) for row in rows])
    current = _tokens(rows, "logprobs")
    assert current is not None
    behaviour = _tokens(rows, "behaviour_logprobs", current)
    old = _tokens(rows, "old_logprobs", behaviour)
    assert old is not None and behaviour is not None  # noqa: PT018  (they have a default)
    reference = _tokens(rows, "reference_logprobs")

    def numbers(key: str, default: float, of: Sequence[int] = range(len(rows))) -> Tensor:
        values = [default if rows[i][key] is None else float(rows[i][key]) for i in of]
        return torch.tensor(values, dtype=torch.float64)

    return TokenBatch(
        logprobs=current,
        old=old,
        behaviour=behaviour,
        reference=reference,
        sequence=torch.arange(len(rows)).repeat_interleave(lengths),
        lengths=lengths,
        group=torch.tensor([names.index(row["group"]) for row in rows]),
        reward=numbers("reward", 0.0),
        chosen=torch.tensor(chosen, dtype=torch.int64),
        rejected=torch.tensor(rejected, dtype=torch.int64),
        p_chosen=numbers("p_chosen", 1.0, chosen),
        weight=numbers("weight", 1.0, chosen) if chosen else numbers("weight", 1.0),
        max_tokens=None if constant is None else int(constant),
        role=torch.tensor([ROLES[row["role"]] for row in rows]),
        strength=numbers("strength", 1.0, chosen),
        truncated=torch.tensor([bool(row["truncated"]) for row in rows]),
        from_reference=torch.tensor([bool(row["from_reference"]) for row in rows]),
        baseline=numbers("baseline", 0.0),
        values=_tokens(rows, "values"),
        reference_kl=_tokens(rows, "reference_kl"),
        mismatched=_log_ratios(strangers),
    )


def _log_ratios(rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """[M] summed log-ratios to the reference; None without any row."""
    import torch

    pairs = [[(row["logprobs"][t], row["reference_logprobs"][t]) for t in _kept(row)] for row in rows]
    return torch.tensor([sum(a - b for a, b in pair) for pair in pairs], dtype=torch.float64) if rows else None


NEEDED = {"reference": "reference_logprobs", "rewards": "reward", "values": "values", "baseline": "baseline"}
NEEDED |= {"reference_kl": "reference_kl", "origins": "from_reference"}


def _check_needs(algorithm: Algorithm, rows: Sequence[Mapping[str, Any]]) -> None:
    wanted, name = needs(algorithm), algorithm.name
    for need, field in NEEDED.items():
        lacking = [i for i, row in enumerate(rows) if row[field] is None]
        if need in wanted and lacking:
            raise _bad(
                f"sequences[{lacking[0]}].{field}", f"is missing, and method {name!r} needs {need}", f"Give {field}."
            )
    if "roles" in wanted and not any(row["role"] for row in rows):
        raise _bad("sequences[0].role", f"is missing, and method {name!r} needs roles", "Use chosen and rejected.")
    groups = [row["group"] for row in rows]
    alone = [i for i, group in enumerate(groups) if groups.count(group) == 1]
    if algorithm.gradient_coefficient.needs_a_group and alone:
        raise _bad(
            f"sequences[{alone[0]}].group",
            f"{groups[alone[0]]!r} has one sequence, and the baseline of method {name!r} needs two",
            "Give more sequences of that group.",
        )


def _pairs(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
    """Indices of the chosen and of the rejected sides, the k-th of a group with the k-th."""
    chosen: list[int] = []
    rejected: list[int] = []
    for group in dict.fromkeys(row["group"] for row in rows):
        sides = [[i for i, r in enumerate(rows) if r["group"] == group and r["role"] == side] for side in ROLES if side]
        if len(sides[0]) != len(sides[1]):
            raise _bad(
                f"group {group!r}",
                f"has {len(sides[0])} chosen and {len(sides[1])} rejected sequences",
                "Give every chosen sequence its rejected one (field `role`).",
            )
        chosen, rejected = chosen + sides[0], rejected + sides[1]
    if not chosen:
        raise _bad("sequences[0].role", "is missing: the method needs pairs", "Use chosen and rejected.")
    return chosen, rejected


def _kept(row: Mapping[str, Any]) -> list[int]:
    """Places of the tokens that are not masked."""
    length = len(row["logprobs"])
    return [t for t in range(length) if row["mask"] is None or row["mask"][t]]


def _tokens(rows: Sequence[Mapping[str, Any]], key: str, default: Tensor | None = None) -> Tensor | None:
    """[B] float64; rows that lack it take the default's tokens, and without a default nothing may lack."""
    import torch

    if default is None and any(row[key] is None for row in rows):
        return None
    parts, start = [], 0
    for row in rows:
        kept = _kept(row)
        if row[key] is None and default is not None:
            parts.append(default[start : start + len(kept)])
        else:
            parts.append(torch.tensor([row[key][t] for t in kept], dtype=torch.float64))
        start += len(kept)
    return torch.cat(parts)


def _spread(rows: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], flat: Tensor) -> list[list[float]]:
    """One list a sequence, zeros where a token is masked and on strangers."""
    values, counted = iter(flat.tolist()), {id(row) for row in own}
    shown = []
    for row in rows:
        line = [0.0] * len(row["logprobs"])
        for t in _kept(row) if id(row) in counted else ():
            line[t] = next(values)
        shown.append(line)
    return shown


def _bad(place: str, what: str, fix: str = "Mend the batch (docs/methods.md shows its form).") -> InvalidInput:
    return InvalidInput(f"{place} {what}.", fix, "BAD_BATCH")
