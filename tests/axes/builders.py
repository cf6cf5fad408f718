"""Small batches and groups, three lines each."""

from __future__ import annotations

import torch

from iterpo.gradient_coefficient import TokenBatch
from iterpo.types import Completion, FinishReason, Group, Message, Preference, Prompt


def batch(lengths=(2, 3), **given) -> TokenBatch:
    """Sequences of these lengths, all of one group, log-probs of zero unless given; float64."""
    tokens, count = sum(lengths), len(lengths)
    zeros = torch.zeros(tokens, dtype=torch.float64)
    fields = {
        "logprobs": zeros,
        "old": zeros,
        "behaviour": zeros,
        "reference": None,
        "sequence": torch.arange(count).repeat_interleave(torch.tensor(lengths)),
        "lengths": torch.tensor(lengths),
        "group": torch.zeros(count, dtype=torch.int64),
        "reward": torch.zeros(count, dtype=torch.float64),
        "chosen": torch.tensor([], dtype=torch.int64),
        "rejected": torch.tensor([], dtype=torch.int64),
        "p_chosen": torch.tensor([], dtype=torch.float64),
        "weight": torch.ones(count, dtype=torch.float64),
        "max_tokens": 10,
    }
    return TokenBatch(**(fields | given))


def pair_batch(lengths=(2, 3), p_chosen=1.0, **given) -> TokenBatch:
    """Sequence 0 is preferred over sequence 1."""
    one = torch.ones(1, dtype=torch.float64)
    pair = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1]), "p_chosen": p_chosen * one, "weight": one}
    return batch(lengths, **(pair | given))


def random_batch(seed: int, groups: int = 3, soft: bool = False) -> TokenBatch:
    """Groups of four ragged sequences with everything that any method may ask for.

    Some ratios are extreme, sequence 4 is far from the reference, the first group's rewards are all equal, some answers
    of the others tie; sequences 0 and 1, 2 and 3, ... are pairs. `soft`: labels that are not sure, weights and
    strengths that are not one.
    """
    draw = torch.Generator().manual_seed(seed)
    count = 4 * groups
    lengths = torch.randint(1, 8, (count,), generator=draw)
    sequence = torch.arange(count).repeat_interleave(lengths)
    tokens, pairs = int(lengths.sum()), count // 2

    def normal(n: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(n, dtype=torch.float64, generator=draw)

    def uniform(n: int) -> torch.Tensor:
        return torch.rand(n, dtype=torch.float64, generator=draw)

    logprobs = -(normal(tokens, 1.0).abs() + 0.05)
    old = logprobs + normal(tokens, 0.2)
    extreme = uniform(tokens) < 0.15
    old = torch.where(extreme, old + normal(tokens, 2.0), old).clamp(max=-0.01)
    reward = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)[torch.randint(0, 3, (count,), generator=draw)]
    reward[:4] = 0.3
    one = torch.ones(pairs, dtype=torch.float64)
    return TokenBatch(
        logprobs=logprobs,
        old=old,
        behaviour=old,
        reference=(logprobs + normal(tokens, 0.5) - 11.0 * (sequence == 4)).clamp(max=-0.01),
        sequence=sequence,
        lengths=lengths,
        group=torch.arange(groups).repeat_interleave(4),
        reward=reward,
        chosen=torch.arange(0, count, 2),
        rejected=torch.arange(1, count, 2),
        p_chosen=uniform(pairs) if soft else one,
        weight=0.5 + uniform(pairs) if soft else one,
        max_tokens=7,
        role=torch.tensor([1, -1] * pairs),
        strength=1 + uniform(pairs) if soft else one,
        truncated=lengths == 7,
        from_reference=torch.tensor([False, True] * pairs),
        baseline=uniform(count),
        values=normal(tokens, 0.5),
        reference_kl=uniform(tokens),
        mismatched=normal(5, 1.0) + 0.5,
    )


def completion(name: str, group: str = "g", tokens=(5, 6), reason=FinishReason.STOP, version: int = 0) -> Completion:
    return Completion(name, "p", group, name, (1, 2), tuple(tokens), (-1.0,) * len(tokens), reason, version, "d")


def group(rewards: dict[str, float], name: str = "g", absent=(), preferences=(), **kwargs) -> Group:
    """A group whose completions are named by the rewards' keys; those in `absent` have none."""
    prompt = Prompt("p", (Message("user", "Hi"),))
    completions = tuple(completion(f"{name}/{k}", name, (5, i), **kwargs) for i, k in enumerate((*rewards, *absent)))
    known = {f"{name}/{k}": r for k, r in rewards.items()}
    made = tuple(Preference(name, f"{name}/{a}", f"{name}/{b}", p) for a, b, p in preferences)
    return Group(name, prompt, completions, known, made)
