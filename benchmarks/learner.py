"""`python -m benchmarks.learner` (`make bench-learner`): the learner beside TRL 1.16 on the same machine.

The embedded model, LoRA of rank 16 on all linear layers, 64 completions of at most 48 tokens. The comparisons:

    update  one update on given completions: GRPO with prompts of 64 and of 512 tokens, DPO with prompts of 64
    step    a whole step with sampling: GRPO (8 prompts x 8 answers), online DPO (32 prompts x 2)
    reward  the held-out reward after as many sampled tokens, GRPO, five seeds (or --seeds)
    same_batches  seven steps of GRPO on the batches that TRL sampled: how near both end

and two of the learner with itself: `memory`, over the size of a batch and of the vocabulary, and `without`, GRPO's
updates with and without each of its parts.

Each side is a process of its own (peak memory is a process's), asked in turn; medians of the rounds after a warm-up.
Both sides compute in bfloat16 where the hardware multiplies it, else in float32. Ours has the libraries
that `iterpo up` gives it (iterpo.preload). TRL runs with its defaults, gradient checkpointing among them, and generates
with transformers, as it does without a GPU. Steps of iterpo go through its services and include publishing, proof, gate
and swap. TRL's packages are installed apart from ours, under HOME/trl. On two cores without bfloat16: update and step
two and a half hours, without some three, reward two; with it some half of that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.learner_curves import REACHED, Curve, draw, our_curve, reached, summary
from benchmarks.learner_services import Services
from benchmarks.learner_side import OF_BFLOAT16, OF_LIBRARIES, WITHOUT
from benchmarks.learner_task import GROUPS, SIZE, task
from benchmarks.machine import hardware_key, versions
from iterpo.embedded_model import prepare
from iterpo.preload import environment

ROUNDS = 5
UPDATES = (("grpo", 64), ("grpo", 512), ("dpo", 64))
STEPS = ("grpo", "online_dpo")
CASES = (*(f"{method}_{tokens}" for method, tokens in UPDATES), *STEPS)
SEEDS, REWARD_STEPS = 5, 7
BATCHES = (1, 2, 4)
"""Of 64 completions."""
VOCABULARIES = (49_152, 152_000)
PARTS = ("update", "step", "without", "memory", "same_batches", "reward")
RESULTS = Path(__file__).parent / "results"
TRL_PACKAGES = (
    "trl==1.16.0",
    "datasets==5.2.0",
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "python-dateutil",
    "six",
    "tzdata",
    "xxhash",
)
"""What TRL needs and iterpo does not; the rest it shares with us, at our versions."""
Ask = Callable[[], dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model and TRL are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="after a warm-up")
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=list(PARTS), help="these parts; others stay as found"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of reward; those found stay (default: %(default)s)")
    parser.add_argument(
        "--cases", nargs="*", choices=CASES, help="of update, step and without, these alone (default: all)"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.rounds, arguments.seeds) < 1:
        parser.error("--rounds and --seeds are at least 1")
    path = arguments.out / f"learner-{hardware_key()}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    bench = Bench(arguments.home, arguments.rounds, arguments.seeds, arguments.cases, found)
    for part in arguments.only:
        about = {"date": time.strftime("%Y-%m-%d"), "dtype": bench.dtype, "versions": versions()}
        for name, row in getattr(bench, part)():
            found.setdefault(part, {})[name] = about | row
            arguments.out.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    if reward := found.get("reward"):
        draw(reward["grpo"]["by_seed"], path.with_name(f"{path.stem}-reward.png"))
    print(table(found), f"\nwritten to {path}", sep="")


class Bench:
    def __init__(self, home: Path, rounds: int, seeds: int, cases: Sequence[str] | None, found: dict[str, Any]) -> None:
        """`found`: earlier results."""
        self._home, self._rounds, self._seeds, self._cases, self._found = home, rounds, seeds, cases, found
        self._base = prepare(home / "models", print)
        self._trl_path = install_trl(home / "trl")
        self.dtype = usual_dtype()

    def update(self) -> Any:
        for method, tokens in UPDATES:
            if not self._wants(f"{method}_{tokens}"):
                continue
            sides = {
                "iterpo": self._ours(self._base, method),
                "trl": self._trl(method),
            }
            asks = {name: side_asked(child, {"prompt_tokens": tokens}) for name, child in sides.items()}
            row = compared(self._rounds, f"update {method} {tokens}", asks)
            for child in sides.values():
                child.shutdown()
            per_second = {name: task(tokens).tokens / s for name, s in row["seconds"].items()}
            yield f"{method}_{tokens}", row | {"tokens_per_second": {n: round(v, 1) for n, v in per_second.items()}}

    def step(self) -> Any:
        for method in STEPS:
            if not self._wants(method):
                continue
            services, trl = (
                Services(self._home / "bench-learner" / time.strftime("%H%M%S"), self._base),
                self._trl(method),
            )
            try:
                asks = {"iterpo": our_second_step(services, method), "trl": second_step(trl)}
                yield method, compared(self._rounds, f"step {method}", asks)
            finally:
                services.shutdown()
                trl.shutdown()

    def _wants(self, case: str) -> bool:
        return self._cases is None or case in self._cases

    def reward(self) -> Any:
        """Ours after as many sampled tokens as TRL had after REWARD_STEPS steps: after the last step that had no more
        (`iterpo`), and on the line between that one and the next (`iterpo_between`), since TRL's ended just there; and
        after as many steps. Seeds that earlier results have are not run again: remove their row to begin anew."""
        seeds = self._found.get("reward", {}).get("grpo", {}).get("by_seed", {})
        services = Services(self._home / "bench-learner" / time.strftime("%H%M%S"), self._base)
        try:
            for seed in (seed for seed in range(self._seeds) if str(seed) not in seeds):
                curves = {"trl": self._trl_curve(seed), "iterpo": our_curve(services, REWARD_STEPS + 2, seed)}
                seeds = seeds | {str(seed): reached(**curves) | {f"{side}_steps": c for side, c in curves.items()}}
                print(f"reward, seed {seed}: {seeds[str(seed)]}", file=sys.stderr, flush=True)
                sides = {side: summary([each[side] for each in seeds.values()]) for side in REACHED}
                yield "grpo", {"steps": REWARD_STEPS, "by_seed": seeds, **sides}
        finally:
            services.shutdown()

    def _trl_curve(self, seed: int) -> Curve:
        trl = self._trl("grpo", seed)
        try:
            asked = (
                (trl.ask({"steps": 1})["tokens"], trl.ask({"heldout": True})["reward"]) for _ in range(REWARD_STEPS)
            )
            return [(tokens, round(reward, 4)) for tokens, reward in asked]
        finally:
            trl.shutdown()

    def same_batches(self) -> Any:
        """Ours on the batches that TRL sampled, from the adapter that it began with: whoever learns alike ends alike.
        TRL judges both."""
        folder = self._home / "bench-learner" / time.strftime("same-batches-%H%M%S")
        folder.mkdir(parents=True)
        trl, ours = self._trl("grpo"), self._ours(self._base, "grpo")
        trl.ask({"steps": REWARD_STEPS, "keep": str(folder)})
        distance = ours.ask({"learn": str(folder)})["distance"]
        rewards = {
            "trl": trl.ask({"heldout": True})["reward"],
            "iterpo": trl.ask({"heldout": True, "adapter": str(folder / "ours.safetensors")})["reward"],
        }
        for child in (trl, ours):
            child.shutdown()
        rounded = {side: round(reward, 4) for side, reward in rewards.items()}
        yield "grpo", {"steps": REWARD_STEPS, "distance_of_the_way": round(distance, 4), "heldout_reward": rounded}

    def without(self) -> Any:
        """The same update with and without a part of the learner, in turn."""
        for method, tokens in UPDATES:
            if method != "grpo" or not self._wants(f"{method}_{tokens}"):
                continue
            for part in WITHOUT:
                if part in OF_BFLOAT16 and self.dtype != "bfloat16":
                    continue
                if part in OF_LIBRARIES and environment(part) == environment():
                    print(f"without {part}: not measured. {OF_LIBRARIES[part]}", file=sys.stderr, flush=True)
                    continue
                sides = {"iterpo": self._ours(self._base, method), "without": self._ours(self._base, method, part)}
                asks = {name: side_asked(child, {"prompt_tokens": tokens}) for name, child in sides.items()}
                yield f"{method}_{tokens} {part}", compared(self._rounds, f"without {part}, {tokens} tokens", asks)
                for child in sides.values():
                    child.shutdown()

    def memory(self) -> Any:
        """Peaks of one update each, in a process of its own."""
        for batches in BATCHES:
            yield f"completions_{batches * GROUPS * SIZE}", self._peak(self._base, batches)
        for size in VOCABULARIES:
            yield f"vocabulary_{size}", self._peak(random_model(self._base, self._home / "models", size), 1)

    def _peak(self, base: Path, batches: int) -> dict[str, Any]:
        child = self._ours(base, "grpo")
        answer = child.ask({"prompt_tokens": 64, "batches": batches})
        child.shutdown()
        print(f"memory {base.name} x {batches}: {answer['peak_mib']:.0f} MiB", file=sys.stderr)
        return {name: round(value, 1) for name, value in answer.items()}

    def _ours(self, base: Path, method: str, without: str = "") -> Child:
        process = environment(without)
        if without == "spinning":
            process = process | {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
        return Child("benchmarks.learner_side", str(base), method, self.dtype, without, **process)

    def _trl(self, method: str, seed: int = 0) -> Child:
        paths = f"{Path.cwd()}:{self._trl_path}"
        return Child("benchmarks.trl_side", str(self._base), method, self.dtype, str(seed), PYTHONPATH=paths)


def side_asked(child: Child, request: dict[str, Any]) -> Ask:
    return lambda: child.ask(request)


def our_second_step(services: Services, method: str) -> Ask:
    """Of other prompts, from another adapter, in every round, as TRL's are."""
    seeds = itertools.count()
    return lambda: services.step(method, next(seeds))


def second_step(child: Child) -> Ask:
    """TRL's second step from the base, as `Services.step` is ours: later answers, and steps with them, are shorter."""

    def ask() -> dict[str, Any]:
        first, second = child.ask({"steps": 1, "afresh": True}), child.ask({"steps": 1})
        sampled = second.pop("tokens") - first["tokens"]
        return second | {"sampled_tokens": sampled}

    return ask


def in_turn(rounds: int, title: str, sides: dict[str, Ask]) -> dict[str, list[dict[str, Any]]]:
    """Each side's answers; the first round is the warm-up, and left out."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, ask in sides.items():
            answer = ask()
            print(f"{title}, round {number}: {name} {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
            if number:
                answers[name].append(answer)
    return answers


def compared(rounds: int, title: str, sides: dict[str, Ask]) -> dict[str, Any]:
    """`sides`: iterpo and another one."""
    answers = in_turn(rounds, title, sides)
    ours, other = answers
    seconds = {name: statistics.median(a["seconds"] for a in rows) for name, rows in answers.items()}
    peaks = {name: max(a["peak_mib"] for a in rows) for name, rows in answers.items()}
    both = zip(answers[ours], answers[other], strict=True)
    return {
        "rounds": rounds,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster": round(seconds[other] / seconds[ours], 2),
        "times_faster_by_round": [round(b["seconds"] / a["seconds"], 2) for a, b in both],
        "peak_memory_mib": {name: round(value) for name, value in peaks.items()},
        "share_of_memory": round(peaks[ours] / peaks[other], 3),
        **{f"of_{side}": of for side, rows in answers.items() if (of := medians(rows))},
    }


def medians(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of what a side says beyond its seconds and memory."""
    names = [name for name in answers[0] if name not in ("seconds", "peak_mib")]
    return {name: round(statistics.median(a[name] for a in answers), 2) for name in names}


def usual_dtype() -> str:
    from iterpo.precision import compute_dtype

    return str(compute_dtype("auto", "cpu")).removeprefix("torch.")


def random_model(base: Path, folder: Path, vocabulary: int) -> Path:
    """The embedded model's shape with another vocabulary, random weights, and its tokenizer."""
    target = folder / f"random-vocabulary-{vocabulary}"
    if not (target / "tokenizer.json").is_file():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        config = AutoConfig.from_pretrained(base)
        config.vocab_size = vocabulary
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
        AutoTokenizer.from_pretrained(base).save_pretrained(target)
    return target


def table(found: dict[str, Any]) -> str:
    """One line a comparison."""
    lines = ["what                               iterpo    other  times  the learner's memory in MiB (of the other's)"]
    for part in ("update", "step", "without"):
        for name, row in found.get(part, {}).items():
            ours, other = row["seconds"].values()
            memory = f"{row['peak_memory_mib']['iterpo']} ({row['share_of_memory']:.2f})"
            if engine := row.get("of_iterpo", {}).get("engine_peak_mib"):
                memory += f", its engine {engine:.0f}"
            lines.append(f"{part + ' ' + name:32s} {ours:7.2f}s {other:7.2f}s {row['times_faster']:6.2f}  {memory}")
    for name, row in found.get("reward", {}).items():
        told = [f"{side} {row[side]['mean']:.3f} {row[side].get('interval', '')}" for side in REACHED]
        lines.append(f"held-out reward {name}: " + ", ".join(told))
    for name, row in found.get("same_batches", {}).items():
        rewards, distance = row["heldout_reward"], row["distance_of_the_way"]
        lines.append(f"{name} on TRL's batches: {distance:.1%} of its way apart, held-out reward {rewards}")
    lines += [f"memory {name}: {row['peak_mib']:.0f} MiB" for name, row in found.get("memory", {}).items()]
    return "".join(f"{line}\n" for line in lines)


def install_trl(folder: Path) -> Path:
    """TRL's packages, with pip, once."""
    if not (folder / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, *TRL_PACKAGES], check=True, timeout=600)
    return folder.resolve()


if __name__ == "__main__":
    main()
