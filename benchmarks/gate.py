"""`python -m benchmarks.gate`: which rule stops which sabotage, on a toy policy that learns in seconds.

A tiny Llama (tests/learner/toy.py) is taught to answer each of eight prompts with a good token of its own, and serves.
From it, for each seed, six candidates are trained, and judged by their greedy answers, as the loop does:
    good        goes on as before
    flipped     DPO on pairs that prefer bad tokens to good ones
    long        imitates answers of six good tokens, rewarded as the short ones are
    collapsed   imitates one good answer to everything
    huge        the good one, its update fifty times as large
    nan         the good one, with NaN in one matrix: refused before it is loaded
Printed: in how many seeds each was promoted, and in how many each rule refused it. The bounds on the update's size and
on KL are the toy's own, 4 and 8 (steps of a model of 32 dimensions are large); all others are the defaults.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from iterpo.errors import PolicyRejected
from iterpo.policies import adapter as adapters
from iterpo.policies import gate
from iterpo.policies.manifest import ADAPTER_FILES
from iterpo.run_config import GateConfig
from iterpo.types import Completion, FinishReason, GateDecision, Group, Preference
from tests.learner.conftest import write_tiny_model
from tests.learner.toy import GOOD, PROMPTS, Toy, completion, prompt

TOKENS = 6
TAUGHT, AFTER, SABOTAGE = 100, 2, 100
"""Iterations of the serving version, of the good candidate, and of those who are to be harmful."""
END = 8
"""Ends an answer here: the toy model's own end of sequence is its padding, whose embedding stays nothing."""
FIRST_GOOD, FIRST_BAD = 12, 40
"""Each prompt's own tokens: its number further on."""
CONFIG = GateConfig(max_relative_norm=4.0, max_kl=8.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure_gate(arguments.seeds), indent=1))


def measure_gate(seeds: int) -> dict[str, dict[str, int]]:
    """Candidate -> `promoted`, and every rule's setting (or the reason of a refused load) -> in how many seeds."""
    torch.set_num_threads(1)
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "toy", spread=0.2)
        for seed in range(seeds):
            for name, settings in one_seed(model, seed).items():
                found.setdefault(name, Counter()).update(settings or ["promoted"])
    return {name: dict(counter.most_common()) for name, counter in found.items()}


def one_seed(model: Path, seed: int) -> dict[str, list[str]]:
    """Candidate -> the settings of the rules that refused it; none: promoted."""
    draw = random.Random(seed)
    own = draw.sample(range(PROMPTS), PROMPTS)
    taught = [[FIRST_GOOD + own[n], END] for n in range(PROMPTS)]
    wrong = [[FIRST_BAD + own[n], END] for n in range(PROMPTS)]
    server = trained(model, seed, "sft", TAUGHT, None, [[answer] for answer in taught])
    start, serving = server.model.adapter(), answers(server)
    turned = list(zip(wrong, taught, strict=True))
    long = [[[draw.randrange(FIRST_GOOD, GOOD) for _ in range(TOKENS)]] for _ in range(PROMPTS)]
    made = {
        "flipped": trained(model, seed, "dpo", SABOTAGE, start, turned),
        "long": trained(model, seed, "sft", SABOTAGE, start, long),
        "collapsed": trained(model, seed, "sft", SABOTAGE, start, [[taught[0]]] * PROMPTS),
    }
    server.learn(AFTER)  # with its own optimiser: a fresh one's first steps at this rate are a harm of their own
    verdicts = {name: settings_of(judge(toy, serving)) for name, toy in {"good": server, **made}.items()}
    verdicts["nan"] = broken_load(server)
    server.model.load_adapter({key: t * 50 if ".lora_B." in key else t for key, t in server.model.adapter().items()})
    verdicts["huge"] = settings_of(judge(server, serving))
    return verdicts


def trained(
    model: Path,
    seed: int,
    method: str,
    iterations: int,
    start: dict[str, torch.Tensor] | None,
    given: Sequence[Sequence[Sequence[int]]],
) -> Toy:
    """A toy that learnt from these answers, one a prompt, or (dpo) the better one and the worse one."""
    toy = Toy(model, method, seed, tokens=TOKENS)
    if start is not None:
        toy.model.load_adapter(start)
    toy.given = [group(n, texts) for n, texts in enumerate(given)]
    toy.learn(iterations)
    return toy


def group(number: int, texts: Sequence[Sequence[int]]) -> Group:
    name, asked = f"g{number}", (1, 3 + number, 1)
    made = tuple(completion(f"{name}/{i}", number, asked, list(t), [0.0] * len(t)) for i, t in enumerate(texts))
    liked = (Preference(name, made[0].completion_id, made[1].completion_id, 1.0),) if len(made) > 1 else ()
    return Group(name, prompt(number), made, preferences=liked)


def answers(toy: Toy) -> list[gate.Judged]:
    return [
        gate.Judged(prompt(n), c, share_of_good(c)) for n, c in enumerate(cut(toy.greedy(n)) for n in range(PROMPTS))
    ]


def cut(c: Completion) -> Completion:
    """After the first END, which stays."""
    if END not in c.token_ids:
        return c
    kept = c.token_ids[: c.token_ids.index(END) + 1]
    return replace(
        c,
        token_ids=kept,
        logprobs=c.logprobs[: len(kept)],
        text=" ".join(map(str, kept)),
        finish_reason=FinishReason.STOP,
    )


def share_of_good(c: Completion) -> float:
    said = [t for t in c.token_ids if t != END]
    return sum(t < GOOD for t in said) / len(said) if said else 0.0


def judge(toy: Toy, serving: list[gate.Judged]) -> GateDecision:
    candidate = answers(toy)
    kl = toy.model.kl([judged.completion for judged in candidate])
    return gate.decide(CONFIG, gate.Evidence(candidate, serving, kl, toy.model.structure()))


def settings_of(decision: GateDecision) -> list[str]:
    return [r.split("gate.")[1].split()[0] if "gate." in r else "not finite" for r in decision.reasons]


def broken_load(toy: Toy) -> list[str]:
    weights = toy.model.adapter()
    broken = next(key for key in weights if ".lora_B." in key)
    toy.model.load_adapter(weights | {broken: torch.full_like(weights[broken], torch.nan)})
    with tempfile.TemporaryDirectory() as folder:
        toy.model.save_adapter(Path(folder))
        files = {name: (Path(folder) / name).read_bytes() for name in ADAPTER_FILES}
    toy.model.load_adapter(weights)
    try:
        adapters.parse(files, max_rank=16)
    except PolicyRejected as error:
        return [error.reason]
    return []


if __name__ == "__main__":
    main()
