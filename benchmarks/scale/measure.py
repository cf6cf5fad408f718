"""Measure what each part takes, on the real services and the embedded model, one thing after the other."""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learner_services import Services
from benchmarks.pipeline import RUN
from benchmarks.scale.costs import Costs
from iterpo.prompts import read
from iterpo.run_data import demo_file
from iterpo.types import SamplingSettings

BATCHES = ((1, 8), (1, 32), (4, 24), (16, 24), (32, 8), (32, 32))
"""(answers, tokens of each)."""
RUNS = ((4, 32), (8, 32), (4, 8))
"""(prompts of four answers, held-out prompts)."""
TIMES, ITERATIONS, WARM_UP = 3, 5, 1
Points = Mapping[tuple[float, ...], float]


def measure(services: Services, home: Path) -> tuple[Costs, dict[str, Any]]:
    """The costs, and the points that their lines were drawn through."""
    answers = dict(_answered(services, *batch) for batch in BATCHES)
    engine = _line(answers)
    call, prompt, step, sequence = engine
    updates: dict[tuple[float, ...], float] = {}
    judged: dict[tuple[float, ...], float] = {}
    loads: list[float] = []
    for prompts, heldout in RUNS:
        tokens, update, load, rest = _parts(services, home, prompts, heldout)
        updates[1.0, tokens] = update
        judged[1.0, heldout] = rest - call - heldout * prompt - RUN["max_tokens"] * (step + heldout * sequence)
        loads.append(load)
    update, trained_token = _line(updates)
    settle, judged_answer = _line(judged)
    costs = Costs(*engine, update, trained_token, statistics.median(loads), judged_answer, settle)
    told = {
        "answers_steps_tokens_seconds": [[*batch[1:], round(s, 3)] for batch, s in answers.items()],
        "tokens_update": [[tokens, round(s, 3)] for (_, tokens), s in updates.items()],
        "heldout_judged": [[heldout, round(s, 3)] for (_, heldout), s in judged.items()],
        "loads": [round(s, 3) for s in loads],
    }
    return costs, told


def _answered(services: Services, number: int, tokens: int) -> tuple[tuple[float, float, float, float], float]:
    """(one call, answers, decoding steps, tokens in them), and the seconds of a batch; the first one is not counted."""
    prompts = [example.prompt for example in read(demo_file("prompts.jsonl"))[:number]]
    seconds, steps, all_tokens = [], [], []
    for seed in range(1 + TIMES):
        started = time.monotonic()
        found = services.generator.sample(prompts, 1, SamplingSettings(max_tokens=tokens, seed=seed))
        seconds.append(time.monotonic() - started)
        lengths = [len(answer.token_ids) for group in found for answer in group]
        steps.append(max(lengths))
        all_tokens.append(sum(lengths))
    took, longest, total = (statistics.mean(each[1:]) for each in (seconds, steps, all_tokens))
    print(f"{number} answers of {tokens} tokens at most: {took:.2f} s", file=sys.stderr)
    return (1.0, number, longest, total), took


def _parts(services: Services, home: Path, prompts: int, heldout: int) -> tuple[float, float, float, float]:
    """Of an iteration: sampled tokens, seconds of the update, of the load, and of what is left after the labels."""
    file = home / f"heldout-{heldout}.jsonl"
    file.write_text("".join(demo_file("heldout.jsonl").read_text().splitlines(keepends=True)[:heldout]))
    wanted = RUN | {"labeler": "fast", "prompts_per_iteration": prompts, "heldout": str(file), "iterations": ITERATIONS}
    rows = services.rows(f"costs-{uuid.uuid4().hex[:6]}", wanted)[WARM_UP:]

    tokens = statistics.median([row.metrics["tokens"] for row in rows])
    update = statistics.median([row.metrics["learner_seconds"] for row in rows])
    load = statistics.median([row.load_ms / 1000 for row in rows])
    rest = statistics.median([row.seconds - row.metrics["wait_rollouts_seconds"] for row in rows]) - update - load
    told = f"update {update:.1f} s, load {load:.1f}, rest {rest:.1f}"
    print(f"{prompts} prompts, {heldout} held out: {told}", file=sys.stderr)
    return tokens, update, load, rest


def _line(points: Points) -> list[float]:
    """Least squares through the points; a cost below nothing is nothing."""
    found, *_ = np.linalg.lstsq(np.array([*points]), np.array([*points.values()]), rcond=None)
    return [max(0.0, float(cost)) for cost in found]
