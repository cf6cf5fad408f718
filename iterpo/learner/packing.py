"""A batch as rows of tokens without padding, each prompt once. Which cut is taken changes no gradient (invariant 5).

A micro-batch is one row: a prompt, its answers one after the other without their last tokens (nothing is read from
those), then the next prompt. Positions go on from the prompt for each answer, and `attention` keeps answers apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iterpo.types import Completion

PADDING = 2
"""Rows whose answers differ much in length or number are cut, so that attention does not compute mostly nothing."""
SHARED = 5
"""A prompt's answers stay in one row up to so many times its length, beyond the budget: where they are cut, the prompt
is computed again, which in longer rows adds less than a quarter."""
_Group = tuple[tuple[int, ...], list[int]]


@dataclass(frozen=True)
class Layout:
    """Where the N tokens of a row belong: G prompts of at most P tokens, n answers each, of at most C tokens."""

    ids: Tensor
    """[N]"""
    positions: Tensor
    """[N] within a sequence: an answer goes on where its prompt ends."""
    prompts: Tensor
    """[G, P] places in the row; N where a prompt has no such token."""
    answers: Tensor
    """[G, n, C] likewise."""
    places: Tensor
    """[N] where each token lies in prompts and answers, flattened and one after the other."""
    reads: Tensor
    """[B] the place in the row whose hidden state predicts each token of the completions, in their order."""

    @property
    def known(self) -> Tensor:
        """[G, P] whether the prompt has such a token."""
        return self.prompts < len(self.ids)

    def to(self, device: torch.device) -> Layout:
        return Layout(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def micro_batches(completions: Sequence[Completion], budget: int, most: int = 0, ranks: int = 1) -> list[list[int]]:
    """Indices of completions, grouped so that the row of each group has `budget` tokens at most, and attention's
    rectangles not more than twice the places that the row's tokens fill.

    Answers to one prompt stay together as far as they fit, those to a long prompt (SHARED) in a row of up to `most`
    tokens. Prompts and answers of like length are neighbours, the longest first: an allocation that will not fit fails
    at once. A completion beyond all that gets a row of its own. Rows are of like length, since the longest one says how
    much memory it takes. They are shorter where several ranks are to have some each; a prompt's answers are cut for
    that only where there are fewer prompts than ranks.
    """
    groups = _groups(completions)
    if ranks > 1 and groups:
        share = _share(completions, groups, ranks)
        budget, most = min(budget, share), most if len(groups) >= ranks else min(most, share)
    lengths = [len(c.token_ids) for c in completions]
    ordered = [(prompt, sorted(members, key=lambda i: -lengths[i])) for prompt, members in groups]
    ordered.sort(key=lambda group: (len(group[0]), lengths[group[1][0]]), reverse=True)
    rows = filled_in_turn(ordered, lengths, budget, most)
    # As even as may be: the lowest budget that needs no more rows, and cuts no prompt's answers that fitted.
    sizes = [_Row().with_group(len(prompt), [lengths[i] for i in members]).tokens for prompt, members in ordered]
    lowest = max((size for size in sizes if size <= budget), default=1)
    enough = bisect_left(
        range(lowest, budget),
        True,
        key=lambda tokens: len(filled_in_turn(ordered, lengths, tokens, most)) <= len(rows),
    )
    return filled_in_turn(ordered, lengths, lowest + enough, most)


def filled_in_turn(groups: Sequence[_Group], lengths: Sequence[int], budget: int, most: int) -> list[list[int]]:
    """Rows that are full before the next one begins. `lengths`: of all answers, in tokens."""
    batches: list[list[int]] = []
    row = _Row()
    for prompt, members in groups:
        longer = row.with_group(len(prompt), [lengths[i] for i in members])
        if batches and longer.fits(budget):
            batches[-1] += members
            row = longer
            continue
        row, room = _Row(), max(budget, min(most, SHARED * len(prompt)))
        for index in members:
            longer = row.with_answer(len(prompt), lengths[index], begun=row.tokens > 0)
            if not row.tokens or not longer.fits(room):
                batches.append([])
                longer = _Row().with_answer(len(prompt), lengths[index], begun=False)
            batches[-1].append(index)
            row = longer
    return batches


@dataclass(frozen=True)
class _Row:
    """The size of a row while it grows."""

    tokens: int = 0
    prompts: int = 0
    answers: int = 0
    """Of the last prompt."""
    most_answers: int = 0
    longest_prompt: int = 0
    longest_answer: int = 0

    def with_answer(self, prompt: int, length: int, begun: bool) -> _Row:
        """`begun`: the prompt lies in the row already, as its last one."""
        own, answers = max(0, length - 1), self.answers + 1 if begun else 1
        return _Row(
            self.tokens + own + (0 if begun else prompt),
            self.prompts + (not begun),
            answers,
            max(self.most_answers, answers),
            max(self.longest_prompt, prompt),
            max(self.longest_answer, own),
        )

    def with_group(self, prompt: int, lengths: Sequence[int]) -> _Row:
        row = self
        for number, length in enumerate(lengths):
            row = row.with_answer(prompt, length, begun=number > 0)
        return row

    def fits(self, budget: int) -> bool:
        """Attention's rectangles, padding included, count as places."""
        places = self.prompts * (self.longest_prompt + self.most_answers * self.longest_answer)
        return self.tokens <= budget and places <= PADDING * self.tokens


def _share(completions: Sequence[Completion], groups: Sequence[_Group], ranks: int) -> int:
    """Tokens of a rank's row, were all equally long: prompts once, or the longest of them again on every rank."""
    prompts = [len(prompt) for prompt, _ in groups]
    answers = sum(max(0, len(c.token_ids) - 1) for c in completions)
    return max(-(-(sum(prompts) + answers) // ranks), max(prompts) + -(-answers // ranks))


def padded_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of sequences for one row each, grouped so that width x count <= budget, padding included: neighbours in
    length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pack(completions: Sequence[Completion]) -> Layout:
    """One row of all of them."""
    groups = _groups(completions)
    ids: list[int] = []
    positions: list[int] = []
    starts: dict[int, int] = {}
    heads: list[int] = []
    for prompt, members in groups:
        heads.append(len(ids))
        ids += prompt
        positions += range(len(prompt))
        for index in members:
            tokens = completions[index].token_ids[:-1]
            starts[index] = len(ids)
            ids += tokens
            positions += range(len(prompt), len(prompt) + len(tokens))
    prompts, answers = _places(completions, groups, heads, starts, len(ids))
    places = torch.empty(len(ids) + 1, dtype=torch.int64)
    both = torch.cat([prompts.flatten(), answers.flatten()])
    places[both] = torch.arange(len(both))
    reads: list[int] = []
    ends = {i: head + len(prompt) - 1 for (prompt, own), head in zip(groups, heads, strict=True) for i in own}
    for index, completion in enumerate(completions):
        if completion.token_ids:
            reads += [ends[index], *range(starts[index], starts[index] + len(completion.token_ids) - 1)]
    return Layout(
        torch.tensor(ids),
        torch.tensor(positions),
        prompts,
        answers,
        places[:-1],
        torch.tensor(reads, dtype=torch.int64),
    )


def _groups(completions: Sequence[Completion]) -> list[_Group]:
    """(prompt, indices of its answers), in the order of their first answers."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, completion in enumerate(completions):
        by_prompt.setdefault(completion.prompt_token_ids, []).append(index)
    return list(by_prompt.items())


def _places(
    completions: Sequence[Completion],
    groups: Sequence[_Group],
    heads: Sequence[int],
    starts: dict[int, int],
    nowhere: int,
) -> tuple[Tensor, Tensor]:
    """([G, P], [G, n, C]) of a Layout."""
    most = max(len(members) for _, members in groups)
    longest = max(0, max(len(c.token_ids) for c in completions) - 1)
    prompts = torch.full((len(heads), max(len(prompt) for prompt, _ in groups)), nowhere)
    answers = torch.full((len(heads), most, longest), nowhere)
    for g, ((prompt, members), head) in enumerate(zip(groups, heads, strict=True)):
        prompts[g, : len(prompt)] = torch.arange(head, head + len(prompt))
        for a, index in enumerate(members):
            length = max(0, len(completions[index].token_ids) - 1)
            answers[g, a, :length] = torch.arange(starts[index], starts[index] + length)
    return prompts, answers
