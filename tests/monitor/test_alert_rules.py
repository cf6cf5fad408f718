"""Each alert on series that fire it and, with one thing changed, on series that must not: by `promtool test rules`.

Series are promtool's notation at one sample in 30 seconds: `0x9` ten zeros, `0+5x9` ten samples that grow by 5.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.prometheus import needs_prometheus, promtool
from tests.platform.test_docs import GENERATOR, ROOT

RULES = ROOT / "iterpo/monitor/rules.yml"
TEXT = RULES.read_text()
ALERTS = re.findall(r"- alert: (\w+)", TEXT)
FAMILY = dict(re.findall(r"- alert: (\w+).*?family: (\w+)", TEXT, re.DOTALL))
ALWAYS = "1x400"


@dataclass(frozen=True)
class Case:
    """`fires`: series that fire the alert at `at`; `quiet` replaces some of them, and it is silent."""

    alert: str
    fires: dict[str, str]
    quiet: dict[str, str]
    says: str
    at: str = "10m"
    labels: dict[str, str] = field(default_factory=dict)


UP = 'up{job="iterpo",service="learner"}'
STARTED = 'process_start_time_seconds{job="iterpo",service="inference"}'
OK, BAD = (f'grpc_server_handled_total{{service="labeling",grpc_code="{code}"}}' for code in ("OK", "INTERNAL"))
FREE, SIZE = (f'iterpo_disk_{what}_bytes{{service="learner"}}' for what in ("free", "size"))
TOKENS, ADMITTED = 'iterpo_inference_tokens_total{call="http"}', "iterpo_inference_answers_admitted"
REFUSED = 'iterpo_inference_refused_total{reason="QUEUE_FULL"}'
PROOFS = 'iterpo_inference_proofs_total{result="PROBE_UNCHANGED"}'
SWAPS, BUSY, NOWHERE = (
    f'iterpo_inference_swaps_failed_total{{reason="{r}"}}' for r in ("QUORUM_MISSED", "CANARY_UNDER_WAY", "NO_PREVIOUS")
)
INSIDE, OUTSIDE = (f'iterpo_inference_attested_tokens_total{{ratio="{r}"}}' for r in ("inside", "outside"))
CANARY = 'iterpo_inference_policy_version{role="canary"}'
CONNECTED, SAME = (f'iterpo_inference_replicas{{which="{w}"}}' for w in ("connected", "serving_the_same"))
DEPTH, REWARDS = "iterpo_labeling_queue_depth", 'iterpo_labeling_rewards_total{labeler="rm"}'
ABSTAINED = 'iterpo_labeling_abstentions_total{labeler="rm",reason="timeout"}'
OPEN = 'iterpo_labeling_tasks{state="open"}'
FIRST, SECOND = (f'iterpo_labeling_labels_total{{presented_outcome="{o}"}}' for o in ("first", "second"))
EXPIRED, GOLD = "iterpo_labeling_lease_expiries_total", "iterpo_labeling_gold_accuracy_ratio"
PEOPLE, OUT = (f'iterpo_labeling_annotators{{state="{s}"}}' for s in ("ok", "quarantined"))
FAST, ALL = (f'iterpo_labeling_commit_seconds_bucket{{le="{le}"}}' for le in ("0.5", "+Inf"))
SLOWER = 'iterpo_labeling_commit_seconds_bucket{le="1"}'
FAILED = 'iterpo_learner_runs_ended_total{state="failed"}'
PROGRESS, ACTIVE, WAITING, PAUSED = (
    f'iterpo_learner_{name}{{run="r"}}' for name in ("last_iteration_timestamp_seconds", "active", "waiting", "paused")
)
ROLLOUTS, PRESSURE = (f'iterpo_learner_wait_seconds_total{{run="r",what="{w}"}}' for w in ("rollouts", "backpressure"))
AHEAD = 'iterpo_learner_ahead{run="r"}'
OLD, USED = 'iterpo_learner_dropped_completions_total{reason="policy_age"}', "iterpo_learner_completions_total"
NORM, NOT_FINITE = 'iterpo_learner_grad_norm{run="r"}', "iterpo_learner_updates_not_finite_total"
NO, YES = (f'iterpo_learner_iterations_total{{decision="{d}"}}' for d in ("refused", "promoted"))
KL, LIMIT = 'iterpo_learner_kl_nats{run="r"}', 'iterpo_learner_kl_limit_nats{run="r"}'
LENGTH, ENTROPY = 'iterpo_learner_completion_tokens{run="r",split="train"}', 'iterpo_learner_entropy_nats{run="r"}'
TRAIN, HELDOUT = (f'iterpo_learner_reward{{run="r",split="{s}"}}' for s in ("train", "heldout"))
MACHINE = 'iterpo_labeling_machine_accuracy_ratio{labeler="reward_model/taste"}'
MISMATCH = 'iterpo_learner_mismatch_outside_ratio{run="r"}'

CASES = [
    Case(
        "ServiceDown", {UP: "1x4 0x40"}, {UP: "1x4 0x0 1x40"}, "learner does not answer.", labels={"service": "learner"}
    ),
    Case(
        "ServiceRestarts",
        {STARTED: "1x3 2x3 3x3 4x40"},
        {STARTED: "1x3 2x40"},
        "inference was started 3 times anew within a quarter of an hour.",
        labels={"service": "inference"},
    ),
    Case(
        "CallsFail",
        {OK: "0+90x40", BAD: "0+10x40"},
        {BAD: "0x40"},
        "labeling fails 10% of its calls by a fault of its own.",
        labels={"service": "labeling"},
    ),
    Case(
        "DiskNearlyFull",
        {FREE: "50x4 5x40", SIZE: "100x44"},
        {FREE: "50x44"},
        "learner has 5% of its disk left.",
        labels={"service": "learner"},
    ),
    Case(
        "EngineSlow",
        {TOKENS: "0+12x40", ADMITTED: "4x40"},
        {TOKENS: "0+60x40"},
        "Each answer under way gets 0.1 tokens a second.",
    ),
    Case(
        "RequestsRefused",
        {REFUSED: "0+30x40"},
        {REFUSED: "0+1x40"},
        "1 requests a second are refused: QUEUE_FULL.",
        labels={"reason": "QUEUE_FULL"},
    ),
    Case(
        "ProofsFail",
        {PROOFS: "0x10 1x40"},
        {PROOFS: "3x50"},
        "Within ten minutes candidates did not pass their proof: PROBE_UNCHANGED.",
        at="12m",
        labels={"result": "PROBE_UNCHANGED"},
    ),
    Case(
        "SwapsFail",
        {SWAPS: "1x15 2x40"},
        {SWAPS: "1x60", BUSY: "1x15 2x40", NOWHERE: "1x15 2x40"},
        "Within ten minutes swaps failed: QUORUM_MISSED.",
        at="12m",
        labels={"reason": "QUORUM_MISSED"},
    ),
    Case(
        "ServedIsNotProved",
        {INSIDE: "0+80x40", OUTSIDE: "0+20x40"},
        {OUTSIDE: "0+5x40"},
        "20% of attested tokens are off: what serves is not what was proved.",
        at="20m",
    ),
    Case(
        "CanaryStuck",
        {CANARY: "0x2 7x200"},
        {CANARY: "0x2 7x50 0x1 8x150"},
        "Version 7 has been the canary for half an hour without a verdict.",
        at="35m",
        labels={"role": "canary"},
    ),
    Case(
        "ReplicasBehind",
        {CONNECTED: "3x60", SAME: "2x60"},
        {SAME: "2x15 3x45"},
        "1 replicas serve another version.",
        at="20m",
    ),
    Case(
        "LabelerSilent",
        {DEPTH: "8x40", REWARDS: "0+5x8 40x40"},
        {REWARDS: "0+5x48"},
        "Completions wait for a verdict, and none has come for two minutes.",
    ),
    Case(
        "LabelerFails",
        {REWARDS: "0+30x40", ABSTAINED: "0+15x40"},
        {ABSTAINED: "0+1x40"},
        "rm abstains 0.5 times a second, more than a tenth of its rewards.",
        labels={"labeler": "rm"},
    ),
    Case(
        "NobodyLabels",
        {OPEN: "12x60", FIRST: "0+1x4 4x60", SECOND: "0x64"},
        {FIRST: "0+1x64"},
        "12 tasks wait for people, and nobody labels.",
        at="25m",
    ),
    Case(
        "LeasesExpire",
        {EXPIRED: "0+15x60", FIRST: "0+8x60", SECOND: "0+7x60"},
        {EXPIRED: "0+3x60"},
        "0.5 leases a second run out without a label.",
        at="25m",
    ),
    Case("GoldAccuracyLow", {GOLD: "0.9x4 0.6x40"}, {GOLD: "0.9x44"}, "Gold tasks are answered right 60% of the time."),
    Case(
        "LeftBias",
        {FIRST: "0+8x60", SECOND: "0+2x60"},
        {FIRST: "0+5x60", SECOND: "0+5x60"},
        "One side of the screen wins 30% more often than a half.",
        at="25m",
    ),
    Case(
        "AnnotatorsQuarantined",
        {PEOPLE: "3x40", OUT: "3x40"},
        {PEOPLE: "9x40", OUT: "1x40"},
        "50% of the annotators are quarantined.",
    ),
    Case(
        "CommitsSlow",
        {FAST: "0+90x60", SLOWER: "0+100x60", ALL: "0+100x60"},
        {FAST: "0+100x60"},
        "A hundredth of the commits takes longer than 950ms.",
        at="15m",
    ),
    Case(
        "RunFailed",
        {FAILED: "0x10 1x40"},
        {FAILED: "1x50"},
        "A run has failed: iterpo run status says why.",
        labels={"state": "failed"},
    ),
    Case(
        "LearnerStalled",
        {PROGRESS: "0x100", ACTIVE: ALWAYS, WAITING: "0x100", PAUSED: "0x100"},
        {PROGRESS: "0+30x100"},
        "Run r has made nothing for 40m 0s and waits for nobody.",
        at="40m",
        labels={"run": "r"},
    ),
    Case(
        "RunWaits",
        {WAITING: ALWAYS, ACTIVE: ALWAYS},
        {WAITING: "1x15 0x1 1x100"},
        "Run r waits for another service or for labels.",
        at="17m",
        labels={"run": "r"},
    ),
    Case(
        "BothWaitsHigh",
        {ROLLOUTS: "0+15x60", PRESSURE: "0+15x60", AHEAD: "1x60"},
        {AHEAD: "0x60"},
        "Run r: learner and sampling wait for each other at the same time.",
        at="25m",
        labels={"run": "r", "what": "rollouts"},
    ),
    Case(
        "AnswersTooOld",
        {OLD: "0+10x60", USED: "0+10x60"},
        {OLD: "0+1x60"},
        "More than a fifth of the completions is too old when its labels come.",
        at="20m",
    ),
    Case(
        "GradientNotFinite",
        {NOT_FINITE: "0x10 1x40"},
        {NOT_FINITE: "1x50"},
        "An update had a gradient that is no finite number.",
    ),
    Case(
        "GradientExplodes",
        {NORM: "0.2x18 40x2", ACTIVE: ALWAYS},
        {NORM: "0.2x18 0.9x2"},
        "Run r: the gradient's norm is 40, twenty times its usual one.",
        labels={"run": "r"},
    ),
    Case(
        "GateRefuses",
        {NO: "0+1x40", YES: "0x40"},
        {YES: "0+1x40"},
        "The gate refused 20 candidates within an hour, nearly all.",
    ),
    Case(
        "KlRunsAway",
        {KL: "0.1x4 1.8x40", LIMIT: "2x44", ACTIVE: ALWAYS},
        {KL: "0.1x44"},
        "Run r is 1.8 nats a token from its base, near its gate's bound.",
        labels={"run": "r"},
    ),
    Case(
        "LengthRunsAway",
        {LENGTH: "40x10 100x40", ACTIVE: ALWAYS},
        {LENGTH: "40x10 60x40"},
        "Run r: answers (train) are 100 tokens long, twice as long as within the hour.",
        labels={"run": "r", "split": "train"},
    ),
    Case(
        "EntropyCollapsed",
        {ENTROPY: "1x4 0.01x40", ACTIVE: ALWAYS},
        {ENTROPY: "1x44"},
        "Run r explores no more: 0.01 nats a token.",
        labels={"run": "r"},
    ),
    Case(
        "RewardGamed",
        {TRAIN: "0.2x20 0.6x60", HELDOUT: "0.4x20 0.2x60"},
        {HELDOUT: "0.4x20 0.5x60"},
        "Run r: training reward rises while held-out reward falls.",
        at="18m",
        labels={"run": "r", "split": "train"},
    ),
    Case(
        "LabelerGamed",
        {MACHINE: "0.9x20 0.6x100", TRAIN: "0.2x20 0.6x100", HELDOUT: "0.5x120"},
        {MACHINE: "0.9x120"},
        "reward_model/taste agrees with people less than an hour ago, while the reward rises.",
        at="55m",
        labels={"labeler": "reward_model/taste"},
    ),
    Case(
        "EngineAndLearnerDisagree",
        {MISMATCH: "0.02x4 0.3x40", ACTIVE: ALWAYS},
        {MISMATCH: "0.08x44"},
        "Run r: 30% of the tokens have another probability in engine and learner, beyond twice bfloat16's noise.",
        labels={"run": "r"},
    ),
]


def rule_test(case: Case, series: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    firing = "count by (family) (ALERTS{alertstate='firing'})"
    samples = [{"labels": f'{{family="{FAMILY[case.alert]}"}}', "value": 1}] if expected else []
    return {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
        "promql_expr_test": [{"expr": firing, "eval_time": case.at, "exp_samples": samples}],
    }


def complaints(case: Case, folder: Path, series: dict[str, str], fires: bool) -> str:
    severity = re.search(rf"alert: {case.alert}\n.*?severity: (\w+)", TEXT, re.DOTALL)
    assert severity is not None
    labels = case.labels | {"severity": severity[1], "family": FAMILY[case.alert]}
    labels |= {"job": "iterpo"} if 'job="iterpo"' in next(iter(series)) else {}
    says = {"summary": case.says, "runbook": f"docs/runbook.md#{case.alert.lower()}"}
    expected = [{"exp_labels": labels, "exp_annotations": says}] if fires else []
    file = folder / "test.json"
    body = {"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [rule_test(case, series, expected)]}
    file.write_text(json.dumps(body))
    return promtool("test", "rules", str(file))


@needs_prometheus
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.alert)
def test_an_alert_fires_alone_and_says_what_is_wrong(case: Case, tmp_path: Path) -> None:
    assert complaints(case, tmp_path, case.fires, fires=True) == ""


@needs_prometheus
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.alert)
def test_without_the_trouble_everything_is_silent(case: Case, tmp_path: Path) -> None:
    assert complaints(case, tmp_path, case.fires | case.quiet, fires=False) == ""


@needs_prometheus
@pytest.mark.parametrize("name", [c.alert for c in CASES if ACTIVE in c.fires])
def test_a_run_that_has_ended_is_no_alarm_whatever_its_last_numbers_were(name: str, tmp_path: Path) -> None:
    case = next(c for c in CASES if c.alert == name)
    assert complaints(case, tmp_path, case.fires | {ACTIVE: "0x400"}, fires=False) == ""


@needs_prometheus
def test_a_run_that_is_paused_or_was_just_now_is_no_alarm(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.alert == "LearnerStalled")
    assert complaints(case, tmp_path, case.fires | {PAUSED: "1x70 0x30"}, fires=False) == ""


@needs_prometheus
def test_one_engine_that_hangs_among_others_is_seen(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.alert == "EngineSlow")
    of = [{TOKENS: f'{TOKENS[:-1]},instance="{i}"}}', ADMITTED: f'{ADMITTED}{{instance="{i}"}}'} for i in "ab"]
    series = {of[0][TOKENS]: "0x40", of[0][ADMITTED]: "4x40", of[1][TOKENS]: "0+600x40", of[1][ADMITTED]: "4x40"}
    hangs = replace(case, labels={"instance": "a"}, says="Each answer under way gets 0 tokens a second.")
    assert complaints(hangs, tmp_path, series, fires=True) == ""


@needs_prometheus
def test_a_run_that_waits_for_its_canary_is_no_alarm(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.alert == "RunWaits")
    assert complaints(case, tmp_path, case.fires | {CANARY: "0x20 2x200"}, fires=False) == ""
    assert complaints(case, tmp_path, case.fires | {CANARY: "0x200"}, fires=True) == ""


def test_every_alert_has_a_case_and_a_paragraph_in_the_runbook() -> None:
    book = (ROOT / "docs/runbook.md").read_text()
    assert sorted(c.alert for c in CASES) == sorted(ALERTS) == sorted(re.findall(r"^### (\w+)$", book, re.MULTILINE))


def test_alerts_look_at_metrics_that_exist() -> None:
    known = {m.name for metrics in GENERATOR.all_metrics().values() for m in metrics} | {"up"}
    asked = set(re.findall(r"\b((?:iterpo|grpc_server|process)_\w+)", TEXT))
    assert {name.removesuffix("_bucket") for name in asked} <= known
