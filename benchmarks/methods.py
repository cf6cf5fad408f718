"""`python -m benchmarks.methods` (`make bench-methods`): many methods on the demo's task, from the base, alike.

One set of real services; every method starts at the base, does as many iterations, and samples as many answers of the
same prompts (methods that learn from given data sample none; `sft_then_dpo` is two runs, the second going on from the
first). Written to benchmarks/results/: one table (Markdown and JSON) and one plot. A row that did not learn stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware_key, peak_memory_mib, versions
from benchmarks.open_gate import ANYTHING
from iterpo import wire
from iterpo.clients.channel import connect_service
from iterpo.clients.inference import InferenceClient, PolicyClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings, load
from iterpo.demo.demo import write_settings
from iterpo.demo.settings import demo_run
from iterpo.embedded_model import prepare
from iterpo.prompts import read
from iterpo.run_config import RunConfig
from iterpo.run_data import demo_file, read_run_data
from iterpo.supervisor import Supervisor
from iterpo.types import GateDecision, IterationRow, Prompt, SamplingSettings
from iterpo.v1 import learner_pb2

RESULTS = Path(__file__).parent / "results"
PROMPTS, SIZE, TOKENS = 8, 8, 48
ONLINE_PAIRS = {"name": "best_worst", "size": SIZE}
METHODS: dict[str, tuple[dict[str, Any], ...]] = {
    "sft_then_dpo": ({"algorithm": "sft"}, {"algorithm": "offline_dpo"}),
    "online_dpo": ({"algorithm": "online_dpo"},),
    "iterative_dpo": ({"algorithm": "iterative_dpo"},),
    "simpo": ({"algorithm": "simpo", "response_sampling": ONLINE_PAIRS},),
    "kto": ({"algorithm": "kto", "response_sampling": {"name": "binary", "size": SIZE, "relative": True}},),
    "orpo": ({"algorithm": "orpo", "response_sampling": ONLINE_PAIRS},),
    **{name: ({"algorithm": name},) for name in ("ppo", "rloo", "reinforce_pp", "grpo", "dr_grpo", "dapo")},
    **{name: ({"algorithm": name},) for name in ("gspo", "cispo")},
}
"""Name in the table -> the runs that make it, one after the other; settings are the demo's but for these."""


def settings_of(run: dict[str, Any], iterations: int) -> dict[str, Any]:
    """The demo's settings of the method, with equally many prompts and answers for all."""
    whole = {**demo_run(run["algorithm"], 0, iterations), **run, "prompts_per_iteration": PROMPTS}
    whole["gate"] = {**ANYTHING}
    if run["algorithm"] == "dapo":
        whole["response_sampling"] = {"size": SIZE, "refill": 0}  # refilling would sample more than the others
    return whole


class Bench:
    def __init__(self, settings: Settings, services: Supervisor, heldout: Sequence[Prompt]) -> None:
        self._services, self._heldout = services, heldout
        self._policies = PolicyClient(connect_service(settings, "inference"))
        self._inference = InferenceClient(connect_service(settings, "inference"))
        self._learner = LearnerClient(connect_service(settings, "learner"))

    def measure(self, name: str, runs: Sequence[dict[str, Any]], iterations: int) -> dict[str, Any]:
        """One row of the table."""
        self._policies.promote(0, GateDecision(True, ("benchmark",), {"by_hand": 1.0}), uuid.uuid4().hex)
        forget_peak(self._services.pid("learner"))
        started, rows, ends = time.monotonic(), [], []
        for number, settings in enumerate(runs):
            run_id = f"{name}-{number}"
            examples, heldout, _ = read_run_data(RunConfig(**settings), Path())
            self._learner.start(run_id, settings_of(settings, iterations), examples, heldout)
            done, end = self._follow(run_id)
            rows, ends = rows + done, [*ends, end]
        updates = [r.metrics["learner_seconds"] for r in rows if "learner_seconds" in r.metrics]
        memory = peak_memory_mib(self._services.pid("learner"))
        return {
            "method": name,
            "heldout_reward_before": round(ends[0].heldout_reward_before, 4),
            "heldout_reward_after": round(ends[-1].heldout_reward, 4),
            "kl_nats_a_token": round(next((r.kl for r in reversed(rows) if r.proved), 0.0), 4),
            "answer_tokens": round(self._length(), 1),
            "iterations": len(rows),
            "sampled_answers": sum(PROMPTS * SIZE for s in runs if not offline(s)) * iterations,
            "seconds": round(time.monotonic() - started, 1),
            "learner_seconds_an_update": round(statistics.mean(updates), 2) if updates else 0.0,
            "learner_peak_mib": max(memory.values()),
            "curve": [round(r.heldout_reward, 4) for r in rows],
        }

    def _follow(self, run_id: str) -> tuple[list[IterationRow], learner_pb2.Run]:
        """Its rows, and the run as it ended."""
        rows: list[IterationRow] = []
        run = learner_pb2.Run()
        for news in self._learner.watch(run_id):
            self._services.poll()
            run = news.run
            if news.HasField("row"):
                rows.append(wire.row_from_proto(run_id, news.row))
                print(
                    f"  {run_id} {len(rows)}: held-out {rows[-1].heldout_reward:.3f}, KL {rows[-1].kl:.3f}", flush=True
                )
        if run.state != learner_pb2.RUN_STATE_FINISHED:
            raise RuntimeError(f"{run_id} did not finish: {run.status}")
        return rows, run

    def _length(self) -> float:
        """Tokens of the serving policy's greedy held-out answers, mean."""
        settings = SamplingSettings(temperature=0.0, max_tokens=TOKENS)
        answers = [g[0] for g in self._inference.sample(self._heldout, 1, settings)]
        return sum(len(c.token_ids) for c in answers) / len(answers)


def offline(run: dict[str, Any]) -> bool:
    from iterpo.algorithms import resolve

    return resolve(RunConfig(**run)).response_sampling.offline


def forget_peak(pid: int) -> None:
    """Start a process's peak memory anew (Linux: VmHWM is reset by a 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    names = [n for n in rows[0] if n != "curve"]
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Held-out reward over iterations, one line a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    styles = ["o-", "s--", "^:", "d-."]
    for number, row in enumerate(rows):
        curve = [row["heldout_reward_before"], *row["curve"]]
        axes.plot(range(len(curve)), curve, styles[number % len(styles)], label=row["method"], markersize=4)
    axes.set(xlabel="iteration", ylabel="held-out reward (greedy)", ylim=(0, 1))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--iterations", type=int, default=6, help="of every run")
    parser.add_argument("--only", nargs="*", choices=list(METHODS), default=list(METHODS), help="these methods alone")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    config_path = write_settings(arguments.home / "bench-methods" / time.strftime("%Y%m%d-%H%M%S"), base)
    heldout = [e.prompt for e in read(demo_file("heldout.jsonl"))]
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / f"methods-{hardware_key()}"
    rows: list[dict[str, Any]] = []
    with Supervisor(config_path) as services:
        services.wait_ready(300)
        bench = Bench(load(config_path), services, heldout)
        for name in arguments.only:
            print(name, flush=True)
            rows.append(bench.measure(name, METHODS[name], arguments.iterations))
            about = {"date": time.strftime("%Y-%m-%d"), "machine": hardware_key(), "versions": versions()}
            stem.with_suffix(".json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
            stem.with_suffix(".md").write_text(markdown(rows))
            plot(rows, stem.with_suffix(".png"))
    print(markdown(rows), f"\nwritten to {stem}.json, .md and .png", sep="")


if __name__ == "__main__":
    main()
