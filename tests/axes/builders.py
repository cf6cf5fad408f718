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


def completion(name: str, group: str = "g", tokens=(5, 6), reason=FinishReason.STOP, version: int = 0) -> Completion:
    return Completion(name, "p", group, name, (1, 2), tuple(tokens), (-1.0,) * len(tokens), reason, version, "d")


def group(rewards: dict[str, float], name: str = "g", absent=(), preferences=(), **kwargs) -> Group:
    """A group whose completions are named by the rewards' keys; those in `absent` have none."""
    prompt = Prompt("p", (Message("user", "Hi"),))
    completions = tuple(completion(f"{name}/{k}", name, (5, i), **kwargs) for i, k in enumerate((*rewards, *absent)))
    known = {f"{name}/{k}": r for k, r in rewards.items()}
    made = tuple(Preference(name, f"{name}/{a}", f"{name}/{b}", p) for a, b, p in preferences)
    return Group(name, prompt, completions, known, made)
