"""Every method's loss as its paper writes it: plain loops over sequences and tokens, numbers of the paper written out.

Nothing here uses iterpo's own helpers. `without` drops the one term that the method is about: the negative control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import torch
from torch import Tensor

from iterpo.gradient_coefficient import TokenBatch


@dataclass
class Answer:
    lp: Tensor
    """[n], the only one with a gradient."""
    old: Tensor
    ref: Tensor
    r: float
    group: int
    values: Tensor
    kl: Tensor
    """[n] full-vocabulary KL(ref; pi), a leaf too."""
    baseline: float
    from_reference: bool

    @property
    def n(self) -> int:
        return len(self.lp)

    @property
    def D(self) -> Tensor:
        return (self.lp - self.ref).sum()


@dataclass
class PairOf:
    w: Answer
    l: Answer
    p: float
    weight: float
    strength: float


@dataclass
class Data:
    answers: list[Answer]
    pairs: list[PairOf]
    z0: float
    limit: int

    def others(self, a: Answer) -> list[Answer]:
        return [b for b in self.answers if b.group == a.group and b is not a]

    def members(self, a: Answer) -> list[Answer]:
        return [b for b in self.answers if b.group == a.group]

    @property
    def tokens(self) -> int:
        return sum(a.n for a in self.answers)


def data_of(batch: TokenBatch, leaf: Tensor, kl_leaf: Tensor) -> Data:
    sizes = batch.lengths.tolist()
    cut = {k: v.split(sizes) for k, v in {"lp": leaf, "old": batch.old, "ref": batch.reference}.items()}
    cut |= {"values": batch.values.split(sizes), "kl": kl_leaf.split(sizes)}
    answers = [
        Answer(
            **{k: v[i] for k, v in cut.items()},
            r=float(batch.reward[i]),
            group=int(batch.group[i]),
            baseline=float(batch.baseline[i]),
            from_reference=bool(batch.from_reference[i]),
        )
        for i in range(len(sizes))
    ]
    columns = (batch.chosen, batch.rejected, batch.p_chosen, batch.weight, batch.strength)
    rows = zip(*(c.tolist() for c in columns), strict=True)
    pairs = [PairOf(answers[w], answers[loser], p, weight, strength) for w, loser, p, weight, strength in rows]
    return Data(answers, pairs, max(0.0, float(batch.mismatched.mean())), batch.max_tokens)


def sig(x: Any) -> Tensor:
    return 1 / (1 + torch.exp(-torch.as_tensor(x, dtype=torch.float64)))


def mean(values: Sequence[Any]) -> Any:
    return sum(values) / len(values)


def std(values: Sequence[float]) -> float:
    m = mean(values)
    return (sum((v - m) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def whitened(values: list[Any]) -> list[float]:
    numbers = [float(v) for v in values]
    m, s = mean(numbers), std(numbers)
    return [(v - m) / (s * s + 1e-8) ** 0.5 for v in numbers]


# Maximum likelihood


def sft(d: Data, without: bool) -> Tensor:
    if without:  # the global token count
        return mean([-a.lp.mean() for a in d.answers])
    return -sum(a.lp.sum() for a in d.answers) / d.tokens


def dft(d: Data, without: bool) -> Tensor:
    weights = [a.lp.exp() if without else a.lp.exp().detach() for a in d.answers]
    return -sum((p * a.lp).sum() for p, a in zip(weights, d.answers, strict=True)) / d.tokens


# Policy gradients


def clip_min(advantage: float, ratio: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(advantage * ratio, advantage * torch.clamp(ratio, 1 - low, 1 + high))


def per_token(d: Data, advantages: list[list[float]], low: float, high: float) -> Tensor:
    """-sum of clipped surrogates over all tokens / number of tokens."""
    total = torch.zeros((), dtype=torch.float64)
    for a, row in zip(d.answers, advantages, strict=True):
        for t in range(a.n):
            total = total + clip_min(row[t], torch.exp(a.lp[t] - a.old[t]), low, high)
    return -total / d.tokens


def constant(d: Data, value: Callable[[Answer], float]) -> list[list[float]]:
    return [[value(a)] * a.n for a in d.answers]


def centred(d: Data, a: Answer) -> float:
    return a.r - mean([b.r for b in d.members(a)])


def grpo_advantage(d: Data, a: Answer) -> float:
    return centred(d, a) / (std([b.r for b in d.members(a)]) + 1e-4)


def reinforce(d: Data, without: bool) -> Tensor:
    baseline = 0.0 if without else mean([a.r for a in d.answers])
    return -mean([(a.r - baseline) * a.lp.sum() for a in d.answers])


def rloo(d: Data, without: bool) -> Tensor:
    total = {id(a): a.r - (0 if without else 0.05) * float((a.old - a.ref).sum()) for a in d.answers}
    losses = []
    for a in d.answers:
        advantage = total[id(a)] - mean([total[id(b)] for b in d.others(a)])
        losses.append(-clip_min(advantage, torch.exp((a.lp - a.old).sum()), 0.2, 0.2))
    return mean(losses)


def remax(d: Data, without: bool) -> Tensor:
    beta = 0.05
    return -mean(
        [(a.r - beta * float((a.old - a.ref).sum()) - (0 if without else a.baseline)) * a.lp.sum() for a in d.answers]
    )


def reinforce_pp(d: Data, without: bool) -> Tensor:
    rows = [[a.r - 0.01 * float((a.old - a.ref)[t:].sum()) for t in range(a.n)] for a in d.answers]
    flat = [v for row in rows for v in row]
    values = iter(flat if without else whitened(flat))
    return per_token(d, [[next(values) for _ in row] for row in rows], 0.2, 0.2)


def reinforce_pp_baseline(d: Data, without: bool) -> Tensor:
    values = iter(whitened([centred(d, a) for a in d.answers for _ in range(a.n)]))
    policy = per_token(d, [[next(values) for _ in range(a.n)] for a in d.answers], 0.2, 0.2)
    kl = sum(((a.lp - a.ref) ** 2).sum() / 2 for a in d.answers) / d.tokens
    return policy + (0 if without else 0.01) * kl


def gae(a: Answer, rewards: list[float], lam: float) -> list[float]:
    out, after = [0.0] * a.n, 0.0
    for t in reversed(range(a.n)):
        following = float(a.values[t + 1]) if t + 1 < a.n else 0.0
        after = rewards[t] + following - float(a.values[t]) + lam * after
        out[t] = after
    return out


def ppo_rewards(a: Answer, beta: float) -> list[float]:
    rewards = [-beta * float(a.old[t] - a.ref[t]) for t in range(a.n)]
    rewards[-1] += a.r
    return rewards


def ppo(d: Data, without: bool) -> Tensor:
    rows = [gae(a, ppo_rewards(a, 0.0 if without else 0.05), 0.95) for a in d.answers]
    values = iter(whitened([v for row in rows for v in row]))
    return per_token(d, [[next(values) for _ in row] for row in rows], 0.2, 0.2)


def vapo(d: Data, without: bool) -> Tensor:
    rows = [gae(a, ppo_rewards(a, 0.0), max(0.0, 1 - 1 / (0.05 * a.n))) for a in d.answers]
    values = iter(whitened([v for row in rows for v in row]))
    policy = per_token(d, [[next(values) for _ in row] for row in rows], 0.2, 0.28)
    nll = -sum(a.lp.sum() for a in d.answers if a.r > 0.5) / d.tokens
    return policy + (0 if without else 0.1) * nll


def grpo(d: Data, without: bool) -> Tensor:
    losses = []
    for a in d.answers:
        x = a.ref - a.lp
        k3 = torch.exp(x) - x - 1
        surrogate = clip_min(grpo_advantage(d, a), torch.exp(a.lp - a.old), 0.2, 0.2)
        losses.append(-(surrogate - (0 if without else 0.04) * k3).sum() / a.n)
    return mean(losses)


def dr_grpo(d: Data, without: bool) -> Tensor:
    advantage = grpo_advantage if without else centred
    return mean([-clip_min(advantage(d, a), torch.exp(a.lp - a.old), 0.2, 0.2).sum() / d.limit for a in d.answers])


def dapo(d: Data, without: bool) -> Tensor:
    cache = 0.2 * d.limit

    def shaped(a: Answer) -> float:
        if without or a.n <= d.limit - cache:
            return a.r
        return a.r + (d.limit - cache - a.n) / cache

    def advantage(a: Answer) -> float:
        rewards = [shaped(b) for b in d.members(a)]
        return (shaped(a) - mean(rewards)) / (std(rewards) + 1e-4)

    return per_token(d, constant(d, advantage), 0.2, 0.28)


def gspo(d: Data, without: bool) -> Tensor:
    losses = []
    for a in d.answers:
        s = torch.exp((a.lp - a.old).mean() if not without else (a.lp - a.old).sum())
        losses.append(-clip_min(grpo_advantage(d, a), s, 3e-4, 4e-4))
    return mean(losses)


def gmpo(d: Data, without: bool) -> Tensor:
    losses = []
    for a in d.answers:
        advantage, x = grpo_advantage(d, a), a.lp - a.old
        cut = torch.clamp(x, max=0.4) if advantage > 0 else torch.clamp(x, min=-0.4)
        losses.append(-advantage * torch.exp((x if without else cut).mean()))
    return mean(losses)


def cispo(d: Data, without: bool, floor: float = 0.0, cap: float = 5.0) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a in d.answers:
        ratio = torch.exp(a.lp - a.old).detach()
        total = total + (grpo_advantage(d, a) * (ratio if without else torch.clamp(ratio, floor, cap)) * a.lp).sum()
    return -total / d.tokens


def sapo(d: Data, without: bool) -> Tensor:
    losses = []
    for a in d.answers:
        advantage = grpo_advantage(d, a)
        tau = 1.0 if advantage > 0 or without else 1.05
        gate = 4 / tau * sig(tau * (torch.exp(a.lp - a.old) - 1))
        losses.append(-(advantage * gate).sum() / a.n)
    return mean(losses)


def kimi(d: Data, without: bool) -> Tensor:
    losses = []
    for a in d.answers:
        moved = (a.lp - a.old).sum()
        losses.append(-centred(d, a) * a.lp.sum() + (0 if without else 0.1 / 2) * moved**2)
    return mean(losses)


def opo(d: Data, without: bool) -> Tensor:
    def baseline(a: Answer) -> float:
        members = d.members(a)
        return mean([b.r for b in members]) if without else sum(b.n * b.r for b in members) / sum(b.n for b in members)

    return -sum((a.r - baseline(a)) * a.lp.sum() for a in d.answers) / d.tokens


def gpg(d: Data, without: bool) -> Tensor:
    scale = 1.0 if without else len(d.answers) / max(1, sum(a.r != 0 for a in d.answers))
    return -sum(scale * centred(d, a) * a.lp.sum() for a in d.answers) / d.tokens


def pass_at_k(d: Data, without: bool) -> Tensor:
    k = 4

    def advantage(a: Answer) -> float:
        n, m = len(d.members(a)), sum(b.r <= 0.5 for b in d.members(a))
        chance = 1 - comb(m, k) / comb(n, k)
        deviation = (chance * (1 - chance)) ** 0.5 + 1e-6
        if a.r > 0.5:
            return (1 - chance) / deviation
        lost = 0.0 if without else comb(m - 1, k - 1) / comb(n - 1, k - 1)
        return (1 - chance - lost) / deviation

    return per_token(d, constant(d, advantage), 0.2, 0.2)


def astar_po(d: Data, without: bool) -> Tensor:
    return mean([(1e-3 * a.D - (a.r - (0 if without else a.baseline))) ** 2 for a in d.answers])


def ctb(d: Data, without: bool) -> Tensor:
    def free(a: Answer) -> Tensor:
        return a.lp.sum() - (0 if without else a.r / 0.1)

    return mean([p.weight * (free(p.w) - free(p.l)) ** 2 for p in d.pairs])


# Preferences


def labelled(d: Data, loss: Callable[[Answer, Answer], Tensor], weigh: bool = False) -> Tensor:
    """Weighted mean over pairs; an unsure label mixes the loss of both orders."""
    total = torch.zeros((), dtype=torch.float64)
    for p in d.pairs:
        weight = p.weight * (p.strength if weigh else 1)
        total = total + weight * (p.p * loss(p.w, p.l) + (1 - p.p) * loss(p.l, p.w))
    return total / len(d.pairs)


def dpo(d: Data, without: bool, beta: float = 0.1) -> Tensor:
    if without:  # the reference
        return labelled(d, lambda w, l: -torch.log(sig(beta * (w.lp.sum() - l.lp.sum()))))
    return labelled(d, lambda w, l: -torch.log(sig(beta * (w.D - l.D))))


def cdpo(d: Data, without: bool) -> Tensor:
    e = 0.0 if without else 0.1

    def loss(w: Answer, l: Answer) -> Tensor:
        return -(1 - e) * torch.log(sig(0.1 * (w.D - l.D))) - e * torch.log(sig(0.1 * (l.D - w.D)))

    return labelled(d, loss)


def robust_dpo(d: Data, without: bool) -> Tensor:
    e, scale = 0.1, (1.0 if without else 1 - 2 * 0.1)

    def loss(w: Answer, l: Answer) -> Tensor:
        return (-(1 - e) * torch.log(sig(0.1 * (w.D - l.D))) + e * torch.log(sig(0.1 * (l.D - w.D)))) / scale

    return labelled(d, loss)


def ipo(d: Data, without: bool, mean_form: bool = True) -> Tensor:
    def h(a: Answer) -> Tensor:
        return a.D / a.n if mean_form != without else a.D

    return labelled(d, lambda w, l: (h(w) - h(l) - 1 / (2 * 0.1)) ** 2)


def slic(d: Data, without: bool) -> Tensor:
    def loss(w: Answer, l: Answer) -> Tensor:
        margin = 1 - 0.1 * (w.D - l.D)
        return margin if without else torch.clamp(margin, min=0)

    return labelled(d, loss)


def chosen_nll(d: Data) -> Tensor:
    return -sum(p.w.lp.sum() for p in d.pairs) / sum(p.w.n for p in d.pairs)


def slic_hf(d: Data, without: bool) -> Tensor:
    hinge = labelled(d, lambda w, l: torch.clamp(1.0 - w.lp.sum() + l.lp.sum(), min=0))
    return hinge + (0 if without else 0.1) * chosen_nll(d)


def simpo(d: Data, without: bool) -> Tensor:
    gamma = 0.0 if without else 0.55 * 2.5
    return labelled(d, lambda w, l: -torch.log(sig(2.5 * (w.lp.mean() - l.lp.mean()) - gamma)))


def orpo(d: Data, without: bool) -> Tensor:
    def log_odds(a: Answer) -> Tensor:
        p = torch.exp(a.lp.mean())
        return torch.log(p / (1 - p))

    odds = labelled(d, lambda w, l: -torch.log(sig(log_odds(w) - log_odds(l))))
    return (0 if without else chosen_nll(d)) + 0.1 * odds


def cpo(d: Data, without: bool) -> Tensor:
    pairs = labelled(d, lambda w, l: -torch.log(sig(0.1 * (w.lp.sum() - l.lp.sum()))))
    return pairs + (0 if without else chosen_nll(d))


def dpop(d: Data, without: bool) -> Tensor:
    lam = 0.0 if without else 50.0
    return labelled(d, lambda w, l: torch.nn.functional.softplus(-0.1 * (w.D - l.D - lam * torch.clamp(-w.D, min=0))))


def r_dpo(d: Data, without: bool) -> Tensor:
    alpha = 0.0 if without else 0.05
    return labelled(d, lambda w, l: -torch.log(sig(0.1 * (w.D - l.D) + alpha * (w.n - l.n))))


def ln_dpo(d: Data, without: bool) -> Tensor:
    def norm(a: Answer) -> int:
        return 1 if without else a.n

    return labelled(d, lambda w, l: -torch.log(sig(5.0 * (w.D / norm(w) - l.D / norm(l)))))


def ld_dpo(d: Data, without: bool) -> Tensor:
    def score(a: Answer, shorter: int) -> Tensor:
        ratio = a.lp - a.ref
        return ratio[:shorter].sum() + (1.0 if without else 0.5) * ratio[shorter:].sum()

    def loss(w: Answer, l: Answer) -> Tensor:
        shorter = min(w.n, l.n)
        return -torch.log(sig(0.1 * (score(w, shorter) - score(l, shorter))))

    return labelled(d, loss)


def tdpo1(d: Data, without: bool) -> Tensor:
    scale = 0.0 if without else 1.0
    return labelled(d, lambda w, l: -torch.log(sig(0.1 * (w.D - l.D) - scale * 0.1 * (l.kl.sum() - w.kl.sum()))))


def tdpo2(d: Data, without: bool) -> Tensor:
    def loss(w: Answer, l: Answer) -> Tensor:
        frozen = w.kl.sum() if without else w.kl.sum().detach()
        return -torch.log(sig(0.1 * (w.D - l.D) - 0.5 * 0.1 * (l.kl.sum() - frozen)))

    return labelled(d, loss)


def exo(d: Data, without: bool) -> Tensor:
    e = 0.2 if without else 1e-3

    def loss(w: Answer, l: Answer) -> Tensor:
        q = torch.softmax(torch.stack([0.1 * w.D, 0.1 * l.D]), 0)
        return q[0] * torch.log(q[0] / (1 - e)) + q[1] * torch.log(q[1] / e)

    return labelled(d, loss)


def nca(d: Data, without: bool) -> Tensor:
    b, half = 0.01, 0.0 if without else 0.5

    def loss(w: Answer, l: Answer) -> Tensor:
        return -torch.log(sig(b * w.D)) - half * torch.log(sig(-b * w.D)) - 0.5 * torch.log(sig(-b * l.D))

    return labelled(d, loss)


def apo_zero(d: Data, without: bool) -> Tensor:
    return labelled(d, lambda w, l: 1 - sig(0.1 * w.D) + (0 if without else sig(0.1 * l.D)))


def apo_down(d: Data, without: bool) -> Tensor:
    return labelled(d, lambda w, l: (0 if without else sig(0.1 * w.D)) + 1 - sig(0.1 * (w.D - l.D)))


def bco(d: Data, without: bool) -> Tensor:
    delta = 0.0 if without else 0.1 * (mean([p.w.D for p in d.pairs]) + mean([p.l.D for p in d.pairs])).detach() / 2
    return labelled(d, lambda w, l: -torch.log(sig(0.1 * w.D - delta)) - torch.log(sig(-(0.1 * l.D - delta))))


def kto(d: Data, without: bool) -> Tensor:
    z0 = 0.0 if without else d.z0
    good = [1 - sig(0.1 * (p.w.D - z0)) for p in d.pairs]
    bad = [1 - sig(0.1 * (z0 - p.l.D)) for p in d.pairs]
    return mean([*good, *bad])


def mpo(d: Data, without: bool) -> Tensor:
    sides = labelled(d, lambda w, l: -torch.log(sig(0.1 * w.D)) - torch.log(sig(-0.1 * l.D)))
    return 0.8 * dpo(d, False) + (0 if without else 0.2) * sides + chosen_nll(d)


def tipo(d: Data, without: bool) -> Tensor:
    return labelled(d, lambda w, l: -torch.log(sig(0.1 * (w.D - l.D))), weigh=not without)


def odpo(d: Data, without: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for p in d.pairs:
        offset = 0.0 if without else 0.5 * max(0.0, float(torch.log(torch.tensor(p.strength))))
        d_w = 0.1 * (p.w.D - p.l.D)
        loss = -p.p * torch.log(sig(d_w - offset)) - (1 - p.p) * torch.log(sig(-d_w - offset))
        total = total + p.weight * loss
    return total / len(d.pairs)


def sppo(d: Data, without: bool) -> Tensor:
    target = 0.0 if without else 0.5 / 1e-3
    return labelled(d, lambda w, l: (w.D - target) ** 2 + (l.D + target) ** 2)


def iterative_rpo(d: Data, without: bool) -> Tensor:
    nll = mean([-p.w.lp.sum() / p.w.n for p in d.pairs])
    return dpo(d, False) + (0 if without else 1.0) * nll


def xpo(d: Data, without: bool) -> Tensor:
    likelihood = sum(a.lp.sum() for a in d.answers if a.from_reference) / len(d.pairs)
    return dpo(d, False) + (0 if without else 1e-5) * likelihood


def nash_md(d: Data, without: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for p in d.pairs:
        own, win = (p.l, 1 - p.p) if p.w.from_reference else (p.w, p.p)
        weight = win - 0.5 - (0 if without else 0.1) * (own.lp - own.ref).detach()
        total = total - p.weight * (weight * own.lp).sum()
    return total / len(d.pairs)


LOSSES: dict[str, Callable[[Data, bool], Tensor]] = {
    **dict.fromkeys(("pretrain", "sft", "rft", "raft", "rest", "star"), sft),
    **{f.__name__: f for f in (dft, reinforce, rloo, remax, reinforce_pp, reinforce_pp_baseline, ppo, vapo)},
    **{f.__name__: f for f in (grpo, dr_grpo, dapo, gspo, gmpo, cispo, sapo, kimi, opo, gpg, pass_at_k)},
    "cispo_verl": lambda d, without: cispo(d, without, 0.8, 1.2),
    **{f.__name__: f for f in (astar_po, ctb, cdpo, robust_dpo, ipo, slic, slic_hf, simpo, orpo, cpo, dpop, r_dpo)},
    "ipo_sum": lambda d, without: ipo(d, without, mean_form=False),
    **{f.__name__: f for f in (ln_dpo, ld_dpo, tdpo1, tdpo2, exo, nca, apo_zero, apo_down, bco, kto, mpo, tipo, odpo)},
    **dict.fromkeys(("offline_dpo", "online_dpo", "self_rewarding", "dno", "apl"), dpo),
    "iterative_dpo": cdpo,
    **{f.__name__: f for f in (sppo, iterative_rpo, xpo, nash_md)},
}
