"""What a response sampler asks of inference, and what it hands to the learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from iterpo.errors import InvalidConfig
from iterpo.types import Completion, Group


@dataclass(frozen=True)
class Draw:
    """So many completions of each prompt from one policy. A group's completions follow its sampler's draws in order."""

    n: int
    policy: str = "serving"
    """An alias of inference, `serving` or `base`; or `mixture`, which the learner draws itself."""
    greedy: bool = False
    share: float = 0.0
    """Of the base, in a mixture's exponents."""
    hint: bool = False
    """The prompt's reference answer is told; the completion is learned under the prompt as it was."""


@dataclass(frozen=True)
class Pair:
    """Indices into `Selection.completions`."""

    chosen: int
    rejected: int
    p_chosen: float = 1.0
    weight: float = 1.0
    strength: float = 1.0
    """How much better, as a weight; 1 where nobody said."""


@dataclass
class Selection:
    """S completions, their rewards and groups, and the pairs among them."""

    completions: list[Completion] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    """[S]; zero where the method looks at no rewards."""
    groups: list[int] = field(default_factory=list)
    """[S], counting from zero."""
    roles: list[int] = field(default_factory=list)
    """[S]: 1 chosen or desirable, -1 rejected or undesirable, 0 neither."""
    baselines: list[float] = field(default_factory=list)
    """[S]: what the sampler measured for the prompt (greedy reward, V*); zero where the method looks at none."""
    from_reference: list[bool] = field(default_factory=list)
    """[S]: not drawn from the current policy."""
    pairs: list[Pair] = field(default_factory=list)
    passes: list[list[int]] = field(default_factory=list)
    """For each pass over the batch, the completions that it learns from (the last one stands for all later passes);
    empty: every pass learns from all."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Completions left out, by reason."""

    def add(
        self,
        completion: Completion,
        reward: float,
        group: int,
        role: int = 0,
        baseline: float = 0.0,
        from_reference: bool = False,
    ) -> int:
        """Returns the completion's index."""
        self.completions.append(completion)
        self.rewards.append(reward)
        self.groups.append(group)
        self.roles.append(role)
        self.baselines.append(baseline)
        self.from_reference.append(from_reference)
        return len(self.completions) - 1

    def add_pair(
        self,
        chosen: Completion,
        rejected: Completion,
        group: int,
        p_chosen: float = 1.0,
        weight: float = 1.0,
        strength: float = 1.0,
        rewards: tuple[float, float] = (0.0, 0.0),
        from_reference: tuple[bool, bool] = (False, False),
    ) -> None:
        first = self.add(chosen, rewards[0], group, 1, from_reference=from_reference[0])
        second = self.add(rejected, rewards[1], group, -1, from_reference=from_reference[1])
        self.pairs.append(Pair(first, second, p_chosen, weight, strength))


class ResponseSampler(Protocol):
    name: ClassVar[str]
    provides: ClassVar[frozenset[str]]
    """Of `completions`, `rewards`, `pairs`, `roles`, `baseline`."""
    offline: ClassVar[bool]
    """True: completions come from a file, inference is not asked for any."""

    @property
    def draws(self) -> tuple[Draw, ...]:
        """What to ask of inference for every prompt; empty when offline."""
        ...

    def select(self, groups: Sequence[Group], seed: int) -> Selection: ...


@dataclass(frozen=True)
class Sized:
    """What samplers share that draw `size` answers of each prompt from the serving policy."""

    name: ClassVar[str]
    offline: ClassVar[bool] = False
    least: ClassVar[int] = 2

    size: int = 8

    def __post_init__(self) -> None:
        if self.size < self.least:
            raise InvalidConfig(
                f"Response sampling {self.name!r} cannot work with {self.size} answer(s) a prompt.",
                f"Use size >= {self.least}.",
            )

    @property
    def draws(self) -> tuple[Draw, ...]:
        return (Draw(self.size),)


def own(sampler: ResponseSampler, group: Group) -> tuple[Completion, ...]:
    """The group's completions that the serving policy sampled: neither greedy nor drawn from the base."""
    if drawn(sampler) != len(group.completions):
        return group.completions  # given data, or a group of other settings: all of it
    kinds = [draw for draw in sampler.draws for _ in range(draw.n)]
    plain = [draw.policy == "serving" and not (draw.greedy or draw.hint) for draw in kinds]
    return tuple(c for c, mine in zip(group.completions, plain, strict=True) if mine)


def drawn(sampler: ResponseSampler) -> int:
    """Completions a prompt."""
    return sum(draw.n for draw in sampler.draws)
