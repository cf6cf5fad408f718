"""`python -m benchmarks.people`: does a policy learn from people what it learns from the rule itself?

Three runs of the demo's task (SmolLM2-135M-Instruct, online DPO, ten iterations, held-out reward by the rule), each
through the three real services:
    rule      the rule labels, the best of eight answers against the worst, as `make demo ALGORITHM=online_dpo`
    people    eight simulated annotators over Annotate streams compare the same eight answers, each with each. Each
              prefers what the rule prefers, with a share of mistakes, and calls equal scores a tie; one task in ten is
              gold or a repeat
    budget    the same, and a reward model, trained from their labels of the first iteration and retrained as they come,
              answers what it is sure of
Printed and written: held-out rewards, gains as shares of the rule's, labels of people and of the model, annotators'
states, agreement of the model with people.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware_key
from iterpo.clients.annotation import Annotation
from iterpo.clients.channel import connect_service
from iterpo.clients.labeling import LabelingClient
from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings, load
from iterpo.demo.demo import RUN_ID, Teller, follow, write_settings
from iterpo.demo.settings import demo_run
from iterpo.embedded_model import prepare
from iterpo.labeling.verifiers import one_friendly_sentence
from iterpo.prompts import read
from iterpo.run_config import RunConfig
from iterpo.run_data import demo_file, read_run_data
from iterpo.supervisor import Supervisor
from iterpo.types import Completion, FinishReason, Group, Lease, Outcome, Prompt

RESULTS = Path(__file__).parent / "results"
ANNOTATORS, MISTAKES = 8, 0.1
TIE = 0.05
"""Scores that differ by less are equal to a person."""
PEOPLE: Mapping[str, Any] = {
    "labeler": "people",
    "response_sampling": {"name": "best_worst", "size": 8},
}
"""As the rule's run, but people find the best and the worst answer by comparing each with each."""


BUDGET: Mapping[str, Any] = {
    "reward_model": '"taste"',
    "confidence": 0.59,
    "audit_share": 0.03,
    "min_labels": 400,
    "retrain_labels": 200,
    "min_accuracy": 0.55,
    "max_pairs": 2000,
}
"""Accuracy and confidence are measured on single votes, of which one in ten is wrong and many are of close answers: a
model that agrees with 59 % of them, by its own reckoning, is right on four pairs of five."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.people", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".iterpo"), help="where the model is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--only", choices=["rule", "people", "budget"], action="append", help="default: all three")
    arguments = parser.parse_args()
    base = prepare(arguments.home / "models", print)
    result: dict[str, Any] = {
        "machine": hardware_key(),
        "date": time.strftime("%Y-%m-%d"),
        "seed": arguments.seed,
        "annotators": ANNOTATORS,
        "mistakes": MISTAKES,
    }
    for name in arguments.only or ["rule", "people", "budget"]:
        folder = arguments.home / "bench" / f"{name}-{arguments.seed}-{time.strftime('%H%M%S')}"
        result[name] = one_run(name, base, folder, arguments.seed, arguments.iterations)
        print(name, result[name], flush=True)
    if "rule" in result:
        for name in ("people", "budget"):
            if name in result:
                result[name]["share_of_the_rules_gain"] = round(result[name]["gain"] / result["rule"]["gain"], 3)
    path = arguments.out / f"people-{hardware_key()}-seed-{arguments.seed}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1), f"\nwritten to {path}", sep="")


def one_run(name: str, base: Path, folder: Path, seed: int, iterations: int) -> dict[str, Any]:
    config_path = write_settings(folder, base)
    if name != "rule":
        text = config_path.read_text()
        config_path.write_text(text.replace("[labeling]", '[labeling]\npairs = "all"'))
    if name == "budget":
        settings = "\n".join(("[labeling.budget]", *(f"{key} = {value}" for key, value in BUDGET.items())))
        config_path.write_text(f"{config_path.read_text()}\n{settings}\n")
    settings = load(config_path)
    run = demo_run("online_dpo", seed, iterations)
    if name != "rule":
        run = {**run, **PEOPLE, "gate": {**run["gate"], "labeler": run["labeler"]}}
    examples, heldout, _ = read_run_data(RunConfig(algorithm="online_dpo"), folder)
    started = time.monotonic()
    tell = Teller(status=lambda _: None, row=lambda row: print(name, row_of(row), flush=True), answers=lambda _: None)
    with Supervisor(config_path, on_event=lambda event: print(event.message, flush=True)) as services:
        services.wait_ready(300.0)
        with people(settings) if name != "rule" else nobody():
            learner = LearnerClient(connect_service(settings, "learner"))
            learner.start(RUN_ID, run, examples, heldout)
            if name == "budget":
                wait_for_reward_model(learner, settings)
            rows, last = follow(learner, services, tell)
        return {
            "heldout_before": round(last.heldout_reward_before, 4),
            "heldout_after": round(last.heldout_reward, 4),
            "gain": round(last.heldout_reward - last.heldout_reward_before, 4),
            "by_iteration": [round(row.heldout_reward, 4) for row in rows],
            "seconds": round(time.monotonic() - started, 1),
            **(labels_used(settings) if name != "rule" else {}),
        }


def wait_for_reward_model(learner: LearnerClient, settings: Settings) -> None:
    """People label the first iteration, then the run pauses until the first reward model is there."""
    assert settings.labeling.budget.reward_model is not None
    deadline = time.monotonic() + 300
    while learner.get(RUN_ID).run.iteration < 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    learner.pause(RUN_ID)
    while not list(settings.labeling.budget.reward_model.glob("[0-9]*/reward_model.json")):
        if time.monotonic() > deadline:
            raise TimeoutError("no reward model was trained")
        time.sleep(0.5)
    metrics = max(settings.labeling.budget.reward_model.glob("[0-9]*/reward_model.json")).read_text()
    print("reward model:", json.loads(metrics)["metrics"], flush=True)
    learner.resume(RUN_ID)


def row_of(row: Any) -> str:
    return f"iteration {row.iteration}: held-out {row.heldout_reward:.3f}, {row.seconds:.0f} s"


@contextmanager
def nobody() -> Iterator[None]:
    yield


@contextmanager
def people(settings: Settings) -> Iterator[None]:
    """Annotators at work until the block is left; gold tasks are there for them from the start."""
    client = LabelingClient(connect_service(settings, "labeling"))
    make_gold(client)
    stop = threading.Event()
    threads = [threading.Thread(target=annotate, args=(settings, f"person-{n}", stop)) for n in range(ANNOTATORS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def annotate(settings: Settings, name: str, stop: threading.Event) -> None:
    chance = random.Random(name)
    with connect_service(settings, "labeling", "annotator") as channel, Annotation(channel, name) as annotation:
        while not stop.is_set():
            if (lease := annotation.next(timeout=0.5)) is not None:
                annotation.label(lease, preferred(lease, chance), duration_seconds=chance.uniform(2, 8))


def preferred(lease: Lease, chance: random.Random) -> Outcome:
    """What the rule prefers, as the screen shows it; a share of mistakes the other way round."""
    task = lease.task
    first, second = (one_friendly_sentence(task.prompt, answer) for answer in (task.first, task.second))
    if abs(first - second) < TIE:
        return Outcome.TIE
    first_wins = (first > second) != (chance.random() < MISTAKES)
    return Outcome.FIRST if first_wins != lease.swapped else Outcome.SECOND


def make_gold(client: LabelingClient, count: int = 40) -> None:
    """Pairs whose better answer nobody doubts: one friendly sentence against a truncated list."""
    prompts = [e.prompt for e in read(demo_file("prompts.jsonl"))][:count]
    for number, prompt in enumerate(prompts):
        name = uuid.uuid4().hex
        good = f"Of course, I am happy to help you with that, friend {number}!"
        bad = "1. First, one should consider the following. 2. Then consider that again, and again. 3. Then"
        answers = tuple(
            Completion(f"{name}-{i}", prompt.prompt_id, name, text, (), (), (), finish, 0, "")
            for i, (text, finish) in enumerate(((good, FinishReason.STOP), (bad, FinishReason.LENGTH)))
        )
        record_gold(client, Group(name, Prompt(prompt.prompt_id, prompt.messages), answers))


def record_gold(client: LabelingClient, group: Group) -> None:
    client.record("gold", "none", [group], uuid.uuid4().hex)
    first, second = (c.completion_id for c in group.completions)
    client.create_tasks("gold", [(first, second)], uuid.uuid4().hex, gold=Outcome.FIRST)


def labels_used(settings: Settings) -> dict[str, Any]:
    client = LabelingClient(connect_service(settings, "labeling"))
    labels = [e.label for e in client.stream(RUN_ID, 0, 1.0) if e.label]
    deciding = [label for label in labels if label.kind == "comparison"]
    report, annotators = client.report(RUN_ID), client.annotators()
    return {
        "labels_of_people": sum("/" not in label.annotator for label in deciding),
        "labels_of_the_reward_model": sum("/" in label.annotator for label in deciding),
        "measuring_labels": len(labels) - len(deciding),
        "states": sorted({f"{a.annotator}: {a.state}" for a in annotators if a.state != 1}),
        "agreement_of_machines": {
            m.annotator: round(m.kappa.value, 3) for m in report.machines if m.kappa.HasField("value")
        },
    }


if __name__ == "__main__":
    main()
