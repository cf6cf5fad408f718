"""Whether a proved candidate may serve: evidence in, a recorded decision out (invariant 10).

Held-out answers of the candidate and of the serving version, greedy, to the same prompts, are compared prompt by
prompt; the update is looked at as a matrix. Every rule is a line of `RULES`: a number, its bound, and a sentence. All
rules are asked, so that a decision names everything that is wrong; the numbers are kept with it whatever came out.

Not implemented: judging by sampled answers; correction for looking at many rules at once (they are bounds on harm, and
each is set with room).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iterpo.run_config import GateConfig
from iterpo.types import Completion, FinishReason, GateDecision, Prompt

Z = 1.645
"""Of a one-sided bound at 95 %."""
FEWEST = 5
"""Prompts of a slice: fewer say nothing about it."""
FEWEST_ANSWERS = 8
"""Prompts below which answers that are all the same are no collapse."""
JUDGED_SHARE = 0.9
"""Of the held-out answers: fewer rewards than that are no measurement."""
KL_TOKENS = 512
"""Of the candidate's held-out answers at which its KL to the base is measured, or a few more: two passes over all of
them cost as much as an update, and their mean is compared with a bound set with room."""
GOLD = "gold"
"""The slice whose prompts are looked at one by one."""
REFUSALS = ("i cannot", "i can't", "i am unable", "i'm unable", "i am not able", "i'm not able", "i won't", "as an ai")


@dataclass(frozen=True, slots=True)
class Judged:
    """A held-out answer, with its reward where somebody judges."""

    prompt: Prompt
    completion: Completion
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    candidate: Sequence[Judged]
    serving: Sequence[Judged]
    """Answers to the same prompts, in the same order."""
    kl: float
    """Nats a token to the base, at the candidate's answers."""
    update: Mapping[str, float] = field(default_factory=dict)
    """`grad_norm`; `relative_norm`: Frobenius norm of the update over that of the weights that it changes;
    `stable_rank`: mean over modules of its squared Frobenius over its squared spectral norm, 1 to r."""


def for_kl(answers: Sequence[Judged]) -> list[Completion]:
    """Answers with KL_TOKENS tokens in all, evenly spread over the prompts, at least FEWEST_ANSWERS of them."""
    completions = [judged.completion for judged in answers]
    tokens = sum(len(c.token_ids) for c in completions)
    count = max(FEWEST_ANSWERS, math.ceil(len(completions) * KL_TOKENS / max(tokens, 1)))
    if count >= len(completions):
        return completions
    return [completions[i * len(completions) // count] for i in range(count)]


def decide(config: GateConfig, evidence: Evidence, judged: bool = True) -> GateDecision:
    """Promote unless a rule refuses, or a number is not finite. `judged` false: nobody judges held-out answers (people
    label, and no `gate.labeler` is set); then their rewards are not asked for. A labeler that abstained on more than a
    tenth of the prompts makes the mean NaN, which promotes nothing."""
    numbers = measure(evidence, judged)
    reasons = [*not_finite(numbers), *(reason for rule in RULES for reason in rule.refusals(config, numbers))]
    return GateDecision(not reasons, tuple(reasons), numbers)


def decide_unseen(update: Mapping[str, float]) -> GateDecision | None:
    """Of a candidate whose update had numbers that are none: it is refused before any engine loads it."""
    numbers = {f"update_{name}": value for name, value in update.items()}
    reasons = not_finite(numbers)
    return GateDecision(False, tuple(reasons), numbers) if reasons else None


def not_finite(numbers: Mapping[str, float]) -> list[str]:
    return [f"{name} is {value}, not a finite number" for name, value in numbers.items() if not math.isfinite(value)]


@dataclass(frozen=True, slots=True)
class Rule:
    """A number that must not lie beyond a bound."""

    number: str
    """Its name in a decision's numbers; one that ends in `*` stands for all that begin so."""
    setting: str
    """The bound's, in `[run.gate]`."""
    sentence: str
    """With {value} and {name}."""
    at_least: bool = False

    def refusals(self, config: GateConfig, numbers: Mapping[str, float]) -> list[str]:
        bound = getattr(config, self.setting)
        start = self.number.removesuffix("*")
        names = [n for n in numbers if n == self.number or (self.number.endswith("*") and n.startswith(start))]
        beyond = [n for n in names if (numbers[n] < bound if self.at_least else numbers[n] > bound)]
        how = "below" if self.at_least else "above"
        return [
            f"{self.sentence.format(value=numbers[n], name=n.removeprefix(start))}, {how} gate.{self.setting} {bound:g}"
            for n in beyond
        ]


RULES = (
    Rule("heldout_gain", "min_heldout_gain", "held-out reward changes by {value:+.3f}", at_least=True),
    Rule("win_rate_high", "min_win_rate", "it wins at most {value:.2f} of the prompts (95 %)", at_least=True),
    Rule("slice_gain_*", "min_slice_gain", "reward of the slice {name} changes by {value:+.3f}", at_least=True),
    Rule("gold_worst", "min_gold_gain", "the reward of a gold prompt changes by {value:+.3f}", at_least=True),
    Rule("kl", "max_kl", "KL is {value:.3f} nats a token"),
    Rule("length_ratio", "max_length_ratio", "answers are {value:.2f} times as long"),
    Rule("same_answer_gain", "max_same_answer_gain", "the share of prompts with the same answer grew by {value:.2f}"),
    Rule("unfinished_gain", "max_unfinished_gain", "the share of answers cut at max_tokens grew by {value:.2f}"),
    Rule("refusal_gain", "max_refusal_gain", "the share of answers that refuse grew by {value:.2f}"),
    Rule("update_relative_norm", "max_relative_norm", "the update's norm is {value:.3f} of the weights'"),
    Rule("update_stable_rank", "min_stable_rank", "the update's stable rank is {value:.2f}", at_least=True),
)


def measure(evidence: Evidence, judged: bool) -> dict[str, float]:
    """Every number that the rules look at, and those that explain them."""
    numbers = {"kl": evidence.kl, **{f"update_{name}": value for name, value in evidence.update.items()}}
    if judged:
        numbers |= _rewards(evidence)
    if evidence.candidate and evidence.serving:
        numbers |= _texts(evidence)
    return numbers


def _rewards(evidence: Evidence) -> dict[str, float]:
    candidate, serving = mean_reward(evidence.candidate), mean_reward(evidence.serving)
    numbers = {"heldout_candidate": candidate, "heldout_serving": serving, "heldout_gain": candidate - serving}
    gains: dict[str, list[float]] = defaultdict(list)
    for new, old in zip(evidence.candidate, evidence.serving, strict=False):
        if new.reward is not None and old.reward is not None:
            gains[slice_of(new.prompt)].append(new.reward - old.reward)
    everywhere = [gain for of_slice in gains.values() for gain in of_slice]
    if everywhere:
        rate = statistics.fmean(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in everywhere)
        numbers |= {"win_rate": rate, "win_rate_high": wilson_high(rate, len(everywhere))}
    if gold := gains.get(GOLD):
        numbers["gold_worst"] = min(gold)
    slices = {name: of_slice for name, of_slice in gains.items() if name and len(of_slice) >= FEWEST}
    return numbers | {f"slice_gain_{name}": statistics.fmean(of_slice) for name, of_slice in sorted(slices.items())}


def _texts(evidence: Evidence) -> dict[str, float]:
    new, old = ([judged.completion for judged in side] for side in (evidence.candidate, evidence.serving))
    tokens = [statistics.fmean(len(c.token_ids) for c in side) for side in (new, old)]
    numbers = {
        "tokens_candidate": tokens[0],
        "tokens_serving": tokens[1],
        "length_ratio": tokens[0] / max(tokens[1], 1),
    }
    for name, share in (("unfinished", _unfinished), ("refusal", _refusing), ("same_answer", _same)):
        numbers[f"{name}_candidate"] = share(new)
        numbers[f"{name}_gain"] = share(new) - share(old)
    return numbers


def mean_reward(answers: Sequence[Judged]) -> float:
    """NaN when more than a tenth of the answers have no reward: means over different prompts are not compared."""
    known = [judged.reward for judged in answers if judged.reward is not None]
    return statistics.fmean(known) if known and len(known) >= JUDGED_SHARE * len(answers) else math.nan


def slice_of(prompt: Prompt) -> str:
    """What stands before the first slash of a prompt's id: `gold/7` is of the slice `gold`; "" without one."""
    name, slash, _ = prompt.prompt_id.partition("/")
    return name if slash else ""


def wilson_high(rate: float, count: int) -> float:
    """The upper end of Wilson's interval of a share (1927), one-sided at 95 %."""
    middle = rate + Z**2 / (2 * count)
    spread = Z * math.sqrt(rate * (1 - rate) / count + Z**2 / (4 * count**2))
    return (middle + spread) / (1 + Z**2 / count)


def _unfinished(answers: Sequence[Completion]) -> float:
    return statistics.fmean(c.finish_reason is FinishReason.LENGTH for c in answers)


def _refusing(answers: Sequence[Completion]) -> float:
    return statistics.fmean(any(words in c.text.lower() for words in REFUSALS) for c in answers)


def _same(answers: Sequence[Completion]) -> float:
    """Share of the prompts that get the commonest text."""
    if len(answers) < FEWEST_ANSWERS:
        return 0.0
    return Counter(c.text.strip() for c in answers).most_common(1)[0][1] / len(answers)
