"""A preference that a tiny model can learn in seconds: tokens below 32 are good. Real samplers, real trainer.

The reward of an answer is its share of good tokens, so a fresh model scores about one half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from iterpo.algorithms import Algorithm, resolve
from iterpo.learner.mixture import sample_mixture
from iterpo.learner.policy_model import PolicyModel
from iterpo.learner.trainer import Trainer
from iterpo.response_sampling import Draw, Narrowing
from iterpo.run_config import LoraConfig, RunConfig
from iterpo.types import Completion, FinishReason, Group, Message, Preference, Prompt

PROMPTS, TOKENS, GOOD = 8, 4, 32
EOS = 2
SETTINGS = {"learning_rate": 0.02, "max_tokens": TOKENS, "prompts_per_iteration": PROMPTS}


def prompt(index: int) -> Prompt:
    return Prompt(f"p{index}", (Message("user", f"w{index}"),))


def reward(completion: Completion) -> float:
    return sum(t < GOOD for t in completion.token_ids) / len(completion.token_ids)


@dataclass
class Toy:
    """One method on the toy preference."""

    model_path: Path
    name: str
    seed: int = 0
    reward: Callable[[Completion], float] = reward
    tokens: int = TOKENS
    numbers: list[dict[str, float]] = field(default_factory=list)
    """What every update returned."""

    def __post_init__(self) -> None:
        self.config = RunConfig(
            algorithm=self.name, seed=self.seed, **overrides(self.name) | {"max_tokens": self.tokens}
        )
        self.algorithm: Algorithm = resolve(self.config)
        self.model = PolicyModel(self.model_path, LoraConfig(r=4, alpha=8), 0, 4096, dtype="float64")
        self.trainer = Trainer(self.model, self.algorithm, self.config)
        self.draw = torch.Generator().manual_seed(self.seed)
        self.given = self._offline() if self.algorithm.response_sampling.offline else None

    def learn(self, iterations: int) -> tuple[float, float]:
        """Mean reward of 64 samples before and after."""
        before = self.score()
        for iteration in range(iterations):
            groups = self.given or [self._group(i) for i in range(PROMPTS)]
            selection = self.algorithm.response_sampling.select(groups, iteration)
            if selection.completions:
                self.numbers.append(self.trainer.update(selection))
        return before, self.score()

    @property
    def objectives(self) -> list[float]:
        return [n["objective"] for n in self.numbers]

    def score(self) -> float:
        draw = torch.Generator().manual_seed(1234)
        answers = [c for i in range(PROMPTS) for c in self._sample(i, Draw(8), "score", draw)]
        return sum(map(self.reward, answers)) / len(answers)

    def greedy(self, index: int) -> Completion:
        """The likeliest answer, token by token."""
        return self._sample(index, Draw(1, greedy=True), "greedy", self.draw)[0]

    def _group(self, index: int) -> Group:
        parts = [
            self._sample(index, d, f"{n}", self.draw) for n, d in enumerate(self.algorithm.response_sampling.draws)
        ]
        completions = tuple(c for part in parts for c in part)
        sampler = self.algorithm.response_sampling
        made = Group(f"g{index}", prompt(index), completions, {c.completion_id: self.reward(c) for c in completions})
        return sampler.narrow(made, self._log_ratios(completions), 0) if isinstance(sampler, Narrowing) else made

    def _log_ratios(self, completions: Sequence[Completion]) -> dict[str, list[float]]:
        current = self.model.logprobs(completions)
        with self.model.base():
            ratio = current - self.model.logprobs(completions)
        parts = ratio.split([len(c.token_ids) for c in completions])
        return {c.completion_id: [float(part.sum())] for c, part in zip(completions, parts, strict=True)}

    def _offline(self) -> list[Group]:
        """Pairs or demonstrations drawn from the base: the best answer of four, and the worst one."""
        groups = []
        for number in range(4 * PROMPTS):
            index, name = number % PROMPTS, f"g{number}"
            ranked = sorted(self._sample(index, Draw(4, "base"), f"o{number}", self.draw), key=self.reward)
            pair = (ranked[-1], ranked[0])
            if "pairs" not in self.algorithm.response_sampling.provides:
                groups.append(Group(name, prompt(index), pair[:1]))
                continue
            liked = Preference(name, pair[0].completion_id, pair[1].completion_id, 1.0)
            groups.append(Group(name, prompt(index), pair, preferences=(liked,)))
        return groups

    @torch.no_grad()
    def _sample(self, index: int, draw: Draw, name: str, generator: torch.Generator) -> list[Completion]:
        prompt_ids = (1, 3 + index, 1)
        if draw.policy == "mixture":
            seed = int(torch.randint(2**31, (1,), generator=generator))
            made = sample_mixture(self.model, prompt_ids, draw.share, 1.0, self.tokens, EOS, seed)
            return [completion(f"g{index}/{name}", index, prompt_ids, made.token_ids, made.logprobs)]
        ids = torch.tensor([prompt_ids] * draw.n)
        chosen, logprobs = [], []
        with self.model.base() if draw.policy == "base" else nullcontext():
            for _ in range(self.tokens):
                p = self.model.peft(input_ids=ids).logits[:, -1].softmax(-1)
                token = p.argmax(-1, keepdim=True) if draw.greedy else torch.multinomial(p, 1, generator=generator)
                chosen.append(token)
                logprobs.append(p.gather(1, token).log())
                ids = torch.cat([ids, token], 1)
        rows = zip(torch.cat(chosen, 1).tolist(), torch.cat(logprobs, 1).tolist(), strict=True)
        return [completion(f"g{index}/{name}{i}", index, prompt_ids, t, lp) for i, (t, lp) in enumerate(rows)]


def completion(
    name: str, index: int, prompt_ids: tuple[int, ...], tokens: Sequence[int], logprobs: Sequence[float]
) -> Completion:
    """Cut after the first end of sequence, which stays. The text names the tokens."""
    n = tokens.index(EOS) + 1 if EOS in tokens else len(tokens)
    reason = FinishReason.STOP if EOS in tokens else FinishReason.LENGTH
    return Completion(
        name,
        f"p{index}",
        f"g{index}",
        " ".join(map(str, tokens[:n])),
        prompt_ids,
        tuple(tokens[:n]),
        tuple(logprobs[:n]),
        reason,
        0,
        "",
    )


def overrides(name: str) -> dict[str, object]:
    """Small groups; single answers where the method wants them; steps that a tiny model can take."""
    base = dict(SETTINGS)
    sizes = {"grpo": 4, "dapo": 4, "vapo": 4, "pass_at_k": 4, "rest": 8, "star": 4, "astar_po": 4, "online_dpo": 4}
    sizes |= {"ctb": 4, "reinforce": 4, "reinforce_pp": 4, "ppo": 4}
    if name in sizes:
        base["response_sampling"] = {"size": sizes[name]}
    if name == "pass_at_k":
        base["gradient_coefficient"] = {"k": 2}
    if name in ("ppo", "vapo"):
        base["critic_learning_rate"] = 0.05
    return base
