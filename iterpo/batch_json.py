"""An optimiser batch as JSON, both ways: what people write down for `iterpo explain`, and what the learner recorded.

    {"sequences": [{"group": "p1", "role": "chosen", "reward": 1.0, "strength": 1.0, "truncated": false,
                    "logprobs": [-1.2, -0.3], "reference_logprobs": [-1.0, -0.4], "behaviour_logprobs": [-1.1, -0.3],
                    "values": null, "mask": [1, 1]}],
     "pairs": [{"chosen": 0, "rejected": 1, "p_chosen": 1.0, "weight": 1.0, "strength": 1.0}],
     "normalizer_constant": null}

Behaviour log-probs are what the importance ratio divides by; without them the batch counts as on-policy. Optional,
and needed by the methods that say so: "old_logprobs" (the trainer's own at the start of the iteration; the ratio then
divides by them and the sampler's enter the correction), "reference_kl" (TDPO), "baseline" (ReMax, A*-PO),
"from_reference" (XPO, Nash-MD), "p_chosen" and "weight" (of a chosen answer's pair), "tokens" (texts, for display).
Pairs: indices of sequences; without "pairs", the k-th chosen of a group with its k-th rejected. A role of null is, for
KTO, an answer to another prompt. `normalizer_constant` is the longest allowed answer, in tokens: Dr. GRPO's constant,
and the limit of overlong shaping. Numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iterpo.algorithms import Algorithm
from iterpo.errors import InvalidInput
from iterpo.gradient_coefficient import TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

PER_TOKEN = ("logprobs", "reference_logprobs", "behaviour_logprobs", "old_logprobs", "values", "reference_kl")
NUMBERS = ("reward", "strength", "baseline", "p_chosen", "weight")
FLAGS = ("truncated", "from_reference")
KEYS = {"group", "role", "mask", "tokens", *PER_TOKEN, *NUMBERS, *FLAGS}
PAIR_NUMBERS = ("p_chosen", "weight", "strength")
TOP_KEYS = {"sequences", "pairs", "normalizer_constant"}
ROLES: Mapping[Any, int] = {"chosen": 1, "rejected": -1, None: 0}


def is_stranger(algorithm: Algorithm, row: Mapping[str, Any]) -> bool:
    """For a method that compares with mismatched answers (KTO), a sequence without a role is one, and no more."""
    return "mismatched" in algorithm.gradient_coefficient.needs and row["role"] is None


def needs(algorithm: Algorithm) -> frozenset[str]:
    """What a batch must say for this method."""
    return algorithm.gradient_coefficient.needs | ({"reference"} if algorithm.kl.beta else frozenset())


def parse(batch: Any) -> list[dict[str, Any]]:
    """The batch's rows, every list checked against the row's length. Raises InvalidInput with field and row."""
    if not isinstance(batch, Mapping) or not isinstance(batch.get("sequences"), Sequence):
        raise _bad("The batch", "must be an object with a list `sequences`")
    if unknown := set(batch) - TOP_KEYS:
        raise _bad("The batch", f"has the unknown key `{min(unknown)}`", f"Use {', '.join(sorted(TOP_KEYS))}.")
    if not batch["sequences"]:
        raise _bad("sequences", "is empty", "Give at least one sequence.")
    if batch.get("pairs") is not None:
        _check_pairs(batch["pairs"], len(batch["sequences"]))
    return [_row(raw, i) for i, raw in enumerate(batch["sequences"])]


def _check_pairs(pairs: Any, sequences: int) -> None:
    if not isinstance(pairs, list):
        raise _bad("pairs", "is no list", "Give a list of pairs, or leave it out.")
    for k, pair in enumerate(pairs):
        place = f"pairs[{k}]"
        if not isinstance(pair, Mapping):
            raise _bad(place, "is no object")
        if unknown := set(pair) - {"chosen", "rejected", *PAIR_NUMBERS}:
            raise _bad(place, f"has the unknown field `{min(unknown)}`")
        sides = [pair.get(side) for side in ("chosen", "rejected")]
        if not all(s in range(sequences) for s in sides) or sides[0] == sides[1]:
            raise _bad(place, f"joins {sides[0]!r} and {sides[1]!r}", "Give indices of two sequences, from 0.")
        _check_numbers(pair, PAIR_NUMBERS, place)


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
    _check_numbers(row, NUMBERS, place)
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


def _check_numbers(numbers: Mapping[str, Any], names: Sequence[str], place: str) -> None:
    for key in names:
        value = numbers.get(key)
        if value is not None and not _is_number(value):
            raise _bad(f"{place}.{key}", f"is {value!r}, not a finite number")
        if value is not None and key == "p_chosen" and not 0 <= value <= 1:
            raise _bad(f"{place}.p_chosen", f"is {value}", "Use a probability.")
        if value is not None and key in ("strength", "weight") and value < 0:
            raise _bad(f"{place}.{key}", f"is {value}", "Use a number >= 0.")


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


def token_batch(algorithm: Algorithm, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> TokenBatch:
    """The parsed rows as tensors, masked tokens left out, with the pairs and the constant of `batch`. Raises
    InvalidInput for what the method needs and a row lacks."""
    import torch

    _check_needs(algorithm, rows)
    strangers = [row for row in rows if is_stranger(algorithm, row)]
    rows = [row for row in rows if not is_stranger(algorithm, row)]
    constant = batch.get("normalizer_constant")
    if constant is not None and (not _is_number(constant) or constant <= 0 or constant != int(constant)):
        raise _bad("normalizer_constant", f"is {constant!r}", "Use the longest allowed answer, in tokens, or null.")
    names = list(dict.fromkeys(row["group"] for row in rows))
    pairs = (batch.get("pairs") or _pairs_by_role(rows)) if "pairs" in needs(algorithm) else []
    lengths = torch.tensor([len(_kept(row)) for row in rows])
    current = _tokens(rows, "logprobs")
    assert current is not None
    behaviour = _tokens(rows, "behaviour_logprobs", current)
    old = _tokens(rows, "old_logprobs", behaviour)
    assert old is not None and behaviour is not None  # noqa: PT018  (they have a default)
    reference = _tokens(rows, "reference_logprobs")

    def numbers(key: str, default: float, of: Sequence[Mapping[str, Any]]) -> Tensor:
        values = [default if each.get(key) is None else float(each[key]) for each in of]
        return torch.tensor(values, dtype=torch.float64)

    return TokenBatch(
        logprobs=current,
        old=old,
        behaviour=behaviour,
        reference=reference,
        sequence=torch.arange(len(rows)).repeat_interleave(lengths),
        lengths=lengths,
        group=torch.tensor([names.index(row["group"]) for row in rows]),
        reward=numbers("reward", 0.0, rows),
        chosen=torch.tensor([int(pair["chosen"]) for pair in pairs], dtype=torch.int64),
        rejected=torch.tensor([int(pair["rejected"]) for pair in pairs], dtype=torch.int64),
        p_chosen=numbers("p_chosen", 1.0, pairs),
        weight=numbers("weight", 1.0, pairs or rows),
        max_tokens=None if constant is None else int(constant),
        role=torch.tensor([ROLES[row["role"]] for row in rows]),
        strength=numbers("strength", 1.0, pairs),
        truncated=torch.tensor([bool(row["truncated"]) for row in rows]),
        from_reference=torch.tensor([bool(row["from_reference"]) for row in rows]),
        baseline=numbers("baseline", 0.0, rows),
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


def _pairs_by_role(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The k-th chosen sequence of a group with its k-th rejected one; the chosen one's numbers are the pair's."""
    pairs: list[dict[str, Any]] = []
    for group in dict.fromkeys(row["group"] for row in rows):
        sides = [[i for i, r in enumerate(rows) if r["group"] == group and r["role"] == side] for side in ROLES if side]
        if len(sides[0]) != len(sides[1]):
            raise _bad(
                f"group {group!r}",
                f"has {len(sides[0])} chosen and {len(sides[1])} rejected sequences",
                "Give every chosen sequence its rejected one (field `role`).",
            )
        pairs += [
            {"chosen": c, "rejected": r} | {key: rows[c][key] for key in PAIR_NUMBERS}
            for c, r in zip(*sides, strict=True)
        ]
    if not pairs:
        raise _bad("sequences[0].role", "is missing: the method needs pairs", "Use chosen and rejected, or `pairs`.")
    return pairs


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


def spread(rows: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], flat: Tensor) -> list[list[float]]:
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


def recorded(batch: TokenBatch, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A learner's batch in this form: explained by the method that it was made for, it gives the numbers that were
    trained on. `texts`: of each sequence's tokens."""
    ends = batch.lengths.cumsum(0).tolist()
    spans = [slice(end - len(line), end) for end, line in zip(ends, texts, strict=True)]
    per_token = {
        "logprobs": batch.logprobs,
        "old_logprobs": batch.old,
        "behaviour_logprobs": batch.behaviour,
        "reference_logprobs": batch.reference,
        "values": batch.values,
        "reference_kl": batch.reference_kl,
    }
    per_sequence = {
        "reward": batch.reward,
        "baseline": batch.baseline,
        "truncated": batch.truncated,
        "from_reference": batch.from_reference,
    }
    roles = {number: name for name, number in ROLES.items()}
    sequences = [
        {"group": f"g{batch.group[i]}", "tokens": list(texts[i])}
        | {"role": None if batch.role is None else roles[int(batch.role[i])]}
        | {name: _numbers(name, t[span]) for name, t in per_token.items() if t is not None}
        | {name: t[i].item() for name, t in per_sequence.items() if t is not None}
        for i, span in enumerate(spans)
    ]
    pairs = [
        {"chosen": int(batch.chosen[k]), "rejected": int(batch.rejected[k]), "p_chosen": float(batch.p_chosen[k])}
        | {"weight": float(batch.weight[k]), "strength": 1.0 if batch.strength is None else float(batch.strength[k])}
        for k in range(len(batch.chosen))
    ]
    strangers = [] if batch.mismatched is None else [_stand_in(float(ratio)) for ratio in batch.mismatched]
    return {"sequences": sequences + strangers, "pairs": pairs or None, "normalizer_constant": batch.max_tokens}


def _numbers(name: str, values: Tensor) -> list[float]:
    """Rounding may leave a log-prob a little above 0."""
    found: list[float] = (values.clamp(max=0.0) if name.endswith("logprobs") else values).tolist()
    return found


def _stand_in(log_ratio: float) -> dict[str, Any]:
    """For an answer to another prompt, of which a method sees no more than this."""
    current, reference = [min(log_ratio, 0.0)], [min(-log_ratio, 0.0)]
    return {"group": "mismatched", "role": None, "logprobs": current, "reference_logprobs": reference}
