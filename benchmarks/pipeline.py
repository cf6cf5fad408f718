"""`python -m benchmarks.pipeline` (`make bench-pipeline`): one run after the other, one thing after the other and as a
pipeline (`run.ahead`), with labels that take time and with labels that take none.

Real services and the embedded model; GRPO, 4 prompts x 4 answers of at most 24 tokens. The slow labeler takes 4 s an
answer, two answers at a time; the gate's takes none. Seconds are from row to row, medians over the rows of all rounds
but each run's first two. On two cores, which engine and learner share: half an hour a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.learner_services import Services
from benchmarks.machine import hardware_key, versions
from benchmarks.open_gate import ANYTHING
from iterpo.embedded_model import prepare
from iterpo.types import IterationRow

AHEAD, ITERATIONS, ROUNDS, WARM_UP = (0, 1, 2), 8, 1, 2
RESULTS = Path(__file__).parent / "results"
LABELERS = """
[labelers.slow]
kind = "verifier"
function = "benchmarks.slow_rule:share_of_e"
[labelers.fast]
kind = "verifier"
function = "benchmarks.slow_rule:fast_share_of_e"
"""
RUN = {
    "algorithm": "grpo",
    "prompts_per_iteration": 4,
    "response_sampling": {"size": 4},
    "kl": {"beta": 0.0},
    "max_tokens": 24,
    "iterations": ITERATIONS,
    "gate": {**ANYTHING, "labeler": "fast"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    services = Services(arguments.home / "bench-pipeline" / time.strftime("%H%M%S"), base, LABELERS)
    rows: dict[tuple[str, int], list[IterationRow]] = {}
    try:
        for number in range(arguments.rounds):
            for labeler in ("slow", "fast"):
                for ahead in AHEAD:
                    wanted = RUN | {"labeler": labeler, "ahead": ahead, "seed": number}
                    made = services.rows(f"{labeler}-{ahead}-{uuid.uuid4().hex[:6]}", wanted)[WARM_UP:]
                    rows.setdefault((labeler, ahead), []).extend(made)
                    seconds = statistics.median(row.seconds for row in made)
                    print(f"{labeler} labels, ahead {ahead}: {seconds:.1f} s an iteration", file=sys.stderr, flush=True)
    finally:
        services.shutdown()
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "versions": versions(), "rounds": arguments.rounds}
    for labeler in ("slow", "fast"):
        synchronous = summary(rows[labeler, 0])["seconds"]
        for ahead in AHEAD:
            numbers = summary(rows[labeler, ahead])
            found[f"{labeler}_ahead_{ahead}"] = numbers | {"times_faster": round(synchronous / numbers["seconds"], 2)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"pipeline-{hardware_key()}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1), f"\nwritten to {path}", sep="")


def summary(rows: list[IterationRow]) -> dict[str, float]:
    def mean(name: str) -> float:
        return round(statistics.mean(row.metrics.get(name, 0.0) for row in rows), 2)

    return {
        "seconds": round(statistics.median(row.seconds for row in rows), 2),
        "waited_for_rollouts": mean("wait_rollouts_seconds"),
        "waited_for_verdicts": mean("wait_verdict_seconds"),
        "backpressure": mean("wait_backpressure_seconds"),
        "policy_age_mean": mean("policy_age_mean"),
        "promoted": round(sum(row.promoted for row in rows) / len(rows), 2),
    }


if __name__ == "__main__":
    main()
