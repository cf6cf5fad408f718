"""Grafana's dashboards, from a table: `python -m iterpo.monitor.dashboards` writes grafana/dashboards/*.json.

A test runs every expression against a live Prometheus, and compares the files with this table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "iterpo"}
WIDTH, HEIGHT = 8, 7
"""Of a panel; Grafana's grid has 24 columns."""
WINDOW = "$__rate_interval"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """Grafana's: s, bytes, percentunit, short, ..."""
    lines: Sequence[tuple[str, str]]
    """(PromQL, legend)."""
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    name: str
    about: str
    panels: Sequence[Panel]
    of_runs: bool = False
    """Whether it has a list to choose runs from."""


def line(title: str, unit: str, expression: str, legend: str = "") -> Panel:
    return Panel(title, unit, [(expression, legend)])


def number(title: str, unit: str, expression: str, legend: str = "") -> Panel:
    return Panel(title, unit, [(expression, legend)], "stat")


def quantiles(title: str, metric: str, by: str = "") -> Panel:
    """Of a histogram of seconds."""
    rates = f"sum by (le{', ' + by if by else ''}) (rate({metric}_bucket[{WINDOW}]))"
    legend = f" {{{{{by}}}}}" if by else ""
    marks = (("0.5", "half"), ("0.95", "95 %"), ("0.99", "99 %"))
    return Panel(title, "s", [(f"histogram_quantile({q}, {rates})", name + legend) for q, name in marks])


RUN = 'run=~"$run"'
OVERVIEW = Dashboard(
    "Overview",
    "Is the loop healthy? Red is an alert; docs/runbook.md says what to do.",
    [
        number("Alerts", "short", 'count(ALERTS{alertstate="firing"}) or vector(0)'),
        number("Services that answer", "short", 'sum(up{job="iterpo"})'),
        number("Version that serves", "short", 'max(iterpo_inference_policy_version{role="serving"})'),
        line("Firing", "short", 'sum by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"),
        Panel("Reward", "short", [("iterpo_learner_reward", "{{run}} {{split}}")]),
        line(
            "Iterations an hour",
            "short",
            "sum by (decision) (increase(iterpo_learner_iterations_total[1h]))",
            "{{decision}}",
        ),
        line("Tokens a second", "short", f"sum by (call) (rate(iterpo_inference_tokens_total[{WINDOW}]))", "{{call}}"),
        line(
            "Calls that fail",
            "percentunit",
            f'(sum by (service) (rate(grpc_server_handled_total{{grpc_code=~"INTERNAL|UNKNOWN|DATA_LOSS"}}[{WINDOW}]))'
            f" or 0 * sum by (service) (rate(grpc_server_handled_total[{WINDOW}])))"
            f" / sum by (service) (rate(grpc_server_handled_total[{WINDOW}]))",
            "{{service}}",
        ),
        line("People's tasks", "short", "sum by (state) (iterpo_labeling_tasks)", "{{state}}"),
        line("Disk free", "percentunit", "iterpo_disk_free_bytes / iterpo_disk_size_bytes", "{{service}}"),
        line("Memory", "bytes", 'process_resident_memory_bytes{job="iterpo"}', "{{service}}"),
        line("CPU", "short", f'rate(process_cpu_seconds_total{{job="iterpo"}}[{WINDOW}])', "{{service}}"),
    ],
)
SERVING = Dashboard(
    "Serving",
    "What serves, how fast, and whether it is what was proved.",
    [
        line("Versions", "short", "iterpo_inference_policy_version", "{{role}}"),
        line("Swaps", "short", "sum by (kind) (increase(iterpo_inference_swaps_total[1h]))", "{{kind}}"),
        line(
            "Swaps that failed",
            "short",
            "sum by (reason) (increase(iterpo_inference_swaps_failed_total[1h]))",
            "{{reason}}",
        ),
        quantiles("Swap", "iterpo_inference_swap_seconds"),
        quantiles("Load and prove", "iterpo_inference_load_seconds"),
        line("Proofs", "short", "sum by (result) (increase(iterpo_inference_proofs_total[1h]))", "{{result}}"),
        line("Probe's error", "short", "iterpo_inference_probe_error_nats", "nats"),
        line(
            "Attested tokens that are off",
            "percentunit",
            f'sum(rate(iterpo_inference_attested_tokens_total{{ratio="outside"}}[{WINDOW}]))'
            f" / sum(rate(iterpo_inference_attested_tokens_total[{WINDOW}]))",
            "off",
        ),
        line("Canary", "short", "iterpo_inference_canary_requests", "{{arm}} {{what}}"),
        line("Tokens a second", "short", f"sum by (call) (rate(iterpo_inference_tokens_total[{WINDOW}]))", "{{call}}"),
        Panel(
            "Answers",
            "short",
            [
                ("iterpo_inference_answers_admitted", "under way or waiting"),
                ("iterpo_inference_requests_in_flight", "holding a version"),
            ],
        ),
        line(
            "Refused a second",
            "short",
            f"sum by (reason) (rate(iterpo_inference_refused_total[{WINDOW}]))",
            "{{reason}}",
        ),
        quantiles("OpenAI-compatible door", "iterpo_inference_http_seconds", "path"),
        line("Its answers", "short", f"sum by (status) (rate(iterpo_inference_http_total[{WINDOW}]))", "{{status}}"),
        line("Replicas", "short", "iterpo_inference_replicas", "{{which}}"),
    ],
)
LABELING = Dashboard(
    "Labeling",
    "Who labels, how well, and whether labels keep up.",
    [
        line("People's tasks", "short", "sum by (state) (iterpo_labeling_tasks)", "{{state}}"),
        line(
            "Labels a minute",
            "short",
            f"60 * sum by (presented_outcome) (rate(iterpo_labeling_labels_total[{WINDOW}]))",
            "{{presented_outcome}}",
        ),
        line(
            "Left answer wins",
            "percentunit",
            'sum(increase(iterpo_labeling_labels_total{presented_outcome="first"}[1h]))'
            ' / sum(increase(iterpo_labeling_labels_total{presented_outcome=~"first|second"}[1h]))',
            "share",
        ),
        line("Gold answered right", "percentunit", "iterpo_labeling_gold_accuracy_ratio", "share"),
        line("Agreement", "short", "iterpo_labeling_agreement_alpha", "alpha"),
        line("Machines right", "percentunit", "iterpo_labeling_machine_accuracy_ratio", "{{labeler}}"),
        line("Annotators", "short", "iterpo_labeling_annotators", "{{state}}"),
        line("Leases that ran out, an hour", "short", "increase(iterpo_labeling_lease_expiries_total[1h])", "leases"),
        line(
            "Labels refused",
            "short",
            f"sum by (reason) (rate(iterpo_labeling_labels_refused_total[{WINDOW}]))",
            "{{reason}}",
        ),
        line(
            "Rewards a second",
            "short",
            f"sum by (labeler) (rate(iterpo_labeling_rewards_total[{WINDOW}]))",
            "{{labeler}}",
        ),
        line(
            "Abstentions a second",
            "short",
            f"sum by (labeler, reason) (rate(iterpo_labeling_abstentions_total[{WINDOW}]))",
            "{{labeler}} {{reason}}",
        ),
        line("Verdicts owed", "short", "iterpo_labeling_queue_depth", "completions"),
        quantiles("Commit", "iterpo_labeling_commit_seconds"),
        line("Events a second", "short", f"sum by (kind) (rate(iterpo_labeling_events_total[{WINDOW}]))", "{{kind}}"),
        quantiles("Label to served", "iterpo_learner_label_to_served_seconds"),
    ],
)
LEARNING = Dashboard(
    "Learning",
    "What the learner does to the policy.",
    [
        line("Reward", "short", f"iterpo_learner_reward{{{RUN}}}", "{{run}} {{split}}"),
        line("KL to the base, nats a token", "short", f"iterpo_learner_kl_nats{{{RUN}}}", "{{run}}"),
        line("Length, tokens", "short", f"iterpo_learner_completion_tokens{{{RUN}}}", "{{run}} {{split}}"),
        line("Entropy, nats", "short", f"iterpo_learner_entropy_nats{{{RUN}}}", "{{run}}"),
        line("Margin, nats", "short", f"iterpo_learner_margin_nats{{{RUN}}}", "{{run}}"),
        line("Clipped", "percentunit", f"iterpo_learner_clipped_ratio{{{RUN}}}", "{{run}}"),
        line("Gradient's norm", "short", f"iterpo_learner_grad_norm{{{RUN}}}", "{{run}}"),
        line("Trainer over sampler", "short", f"iterpo_learner_mismatch_ratio{{{RUN}}}", "{{run}} {{percentile}} %"),
        line("Outside [0.9, 1.1]", "percentunit", f"iterpo_learner_mismatch_outside_ratio{{{RUN}}}", "{{run}}"),
        line("Age of answers, versions", "short", f"iterpo_learner_policy_age_versions{{{RUN}}}", "{{run}} {{of}}"),
        line(
            "Waiting", "percentunit", f"rate(iterpo_learner_wait_seconds_total{{{RUN}}}[{WINDOW}])", "{{run}} {{what}}"
        ),
        line("Gate", "short", "sum by (decision) (increase(iterpo_learner_iterations_total[1h]))", "{{decision}}"),
        quantiles("Iteration", "iterpo_learner_iteration_seconds"),
        quantiles("Sampling", "iterpo_learner_sampling_seconds"),
        quantiles("Update", "iterpo_learner_update_seconds"),
        quantiles("Judging", "iterpo_learner_judging_seconds"),
        line("Tokens trained on a second", "short", f"rate(iterpo_learner_tokens_total[{WINDOW}])", "tokens"),
        line(
            "Dropped a minute",
            "short",
            f"60 * sum by (reason) (rate(iterpo_learner_dropped_completions_total[{WINDOW}]))",
            "{{reason}}",
        ),
    ],
    of_runs=True,
)
DASHBOARDS = (OVERVIEW, SERVING, LABELING, LEARNING)


def as_json(dashboard: Dashboard) -> str:
    """As Grafana's provisioning reads it."""
    runs = {
        "name": "run",
        "type": "query",
        "datasource": DATASOURCE,
        "query": "label_values(iterpo_learner_active, run)",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }
    body: dict[str, Any] = {
        "uid": f"iterpo-{dashboard.name.lower()}",
        "title": f"iterpo: {dashboard.name}",
        "description": dashboard.about,
        "tags": ["iterpo"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["iterpo"], "title": "iterpo", "asDropdown": False}],
        "templating": {"list": [runs] if dashboard.of_runs else []},
        "panels": [_panel(place, panel) for place, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(body, indent=1) + "\n"


def _panel(place: int, panel: Panel) -> dict[str, Any]:
    column, row = place % (24 // WIDTH), place // (24 // WIDTH)
    return {
        "id": place + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name.lower()}.json").write_text(as_json(dashboard))


if __name__ == "__main__":
    main()
