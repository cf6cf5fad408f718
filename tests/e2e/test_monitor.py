"""A real Prometheus reads the real services while a real run goes on: what is documented is there, and all is quiet."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import psutil
import pytest
from click.testing import CliRunner

from iterpo.cli import run
from iterpo.demo.free_ports import free_ports
from tests.e2e.collector import Collector, collecting
from tests.e2e.services import RUN_SECONDS, Services, finished, running_services
from tests.monitor.live import PANELS, Prometheus, expressions, running_prometheus, until
from tests.monitor.prometheus import needs_prometheus, promtool
from tests.page.browser import CHROMIUM, HOW_TO_INSTALL, NUMBERS, Person, chromium, eventually
from tests.platform.test_docs import GENERATOR

pytestmark = [pytest.mark.e2e, needs_prometheus, pytest.mark.timeout(600)]
SILENT = {
    "Firing",  # no alert
    "Swaps that failed",
    "Attested tokens that are off",  # attested_share is 0 by default
    "Canary",
    "Refused a second",
    "OpenAI-compatible door",  # nobody asked
    "Its answers",
    "Left answer wins",  # no people
    "Gold answered right",
    "Agreement",
    "Machines right",
    "Annotators",
    "Labels refused",
    "Abstentions a second",
    "Margin, nats",  # no pairs
    "Dropped a minute",
}
"""Panels that a healthy run of GRPO without people leaves empty."""


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[Collector, str]]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def watched(tmp_path_factory, traced) -> Iterator[tuple[Services, Prometheus]]:
    (port,) = free_ports(1)
    home = tmp_path_factory.mktemp("monitored") / "home"
    address = f"127.0.0.1:{port}"
    more = f'[monitor]\naddress = "{address}"\n[trace]\nendpoint = "{traced[1]}"\n'
    with (
        running_services(home, more=more) as services,
        running_prometheus(home / "iterpo.toml", address) as prometheus,
    ):
        services.start("watched", iterations=3)
        services.wait("watched", finished, RUN_SECONDS)
        until(lambda: bool(prometheus.query('iterpo_learner_iteration{run="watched"} == 3')), 30)
        yield services, prometheus


@pytest.mark.parametrize("name", ["inference", "labeling", "learner"])
def test_every_documented_metric_exists_and_every_existing_one_is_documented(watched, name: str) -> None:
    services, _ = watched
    address = getattr(services.settings, name).metrics_address
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        text = page.read().decode()
    described = GENERATOR.all_metrics()
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == {m.name for m in described["all"] + described[name]}
    assert promtool("check", "metrics", text=text) == ""


def test_all_three_services_answer_and_no_alert_fires(watched) -> None:
    """But for the disk's, where this machine's is full: that alert is right then."""
    services, prometheus = watched
    disk = psutil.disk_usage(str(services.settings.data_dir))
    full = {"DiskNearlyFull"} if disk.free < 0.1 * (disk.used + disk.free) else set()
    assert [s["value"][1] for s in prometheus.query('sum(up{job="iterpo"})')] == ["3"]
    assert prometheus.firing() == full


def test_the_runs_numbers_are_those_of_its_rows(watched) -> None:
    services, prometheus = watched
    last = services.learner.get("watched").rows[-1]
    [heldout] = prometheus.query('iterpo_learner_reward{run="watched",split="heldout"}')
    [kl] = prometheus.query("iterpo_learner_kl_nats")
    assert float(heldout["value"][1]) == pytest.approx(last.heldout_reward)
    assert float(kl["value"][1]) == pytest.approx(last.kl_nats)
    [lag] = prometheus.query("iterpo_learner_label_to_served_seconds_count")
    assert int(lag["value"][1]) == sum(row.promoted for row in services.learner.get("watched").rows)


def test_each_iteration_is_one_trace_through_the_three_services_and_holds_no_text(watched, traced) -> None:
    services, _ = watched
    rows = services.learner.get("watched").rows
    journey = {
        ("iterpo-learner", "sample"),
        ("iterpo-inference", "iterpo.v1.InferenceService/Sample"),
        ("iterpo-learner", "record"),
        ("iterpo-labeling", "iterpo.v1.LabelingService/RecordCompletions"),
        ("iterpo-learner", "label"),
        ("iterpo-learner", "update"),
        ("iterpo-learner", "publish"),
        ("iterpo-learner", "prove"),
        ("iterpo-inference", "iterpo.v1.PolicyService/LoadPolicy"),
        ("iterpo-labeling", "iterpo.v1.LabelingService/ScoreCompletions"),
        ("iterpo-learner", "swap"),
        ("iterpo-inference", "iterpo.v1.PolicyService/PromotePolicy"),
    }

    def complete() -> bool:
        """Spans come in batches, some seconds after they ended."""
        by_trace: dict[str, set[tuple[str, str]]] = {}
        for span in list(traced[0].spans):
            by_trace.setdefault(span.trace, set()).add((span.service, span.name))
        return sum(journey <= found for found in by_trace.values()) == sum(row.promoted for row in rows) > 0

    until(complete, 30)
    [text, *_] = [a["text"] for a in services.learner.batch("watched")[0]["answers"] if len(a["text"]) > 20]
    told = [value for span in traced[0].spans for value in span.attributes.values()]
    assert not [value for value in told if text[:20] in value]


@pytest.mark.skipif(not CHROMIUM.exists(), reason=HOW_TO_INSTALL)
def test_the_page_shows_a_run_live_and_then_the_tokens_that_it_was_trained_on(watched) -> None:
    """Real engine, real learner, real browser; nothing is loaded anew by hand."""
    services, _ = watched
    with chromium() as browser:
        lea = Person.at(browser, f"http://{services.settings.labeling.page_address}")
        lea.sign_in("lea")
        services.start("seen", iterations=2)
        lea.page.goto(f"http://{services.settings.labeling.page_address}/runs?run=seen")
        reward = lea.page.locator("#curves figure").first
        for number in (1, 2):
            lea.page.wait_for_function(
                "number => document.querySelector('#curves figure').innerText.includes(`iteration ${number}`)",
                arg=number,
                timeout=1000 * RUN_SECONDS,
            )
        assert "held-out" in reward.inner_text()
        assert eventually(lambda: "grpo, finished" in lea.page.locator("#run-status").inner_text(), 60)
        lea.page.locator("#tokens").click()
        lea.wait_for("ready")
        lea.page.locator('[data-at="0/3/1"]').focus()
        shown = lea.page.locator("#detail-methods dl").evaluate(NUMBERS)
        assert lea.said == []
    explained = services.learner.explain_batch("seen")
    assert shown["gradient"] == explained["gradient"][3][1]
    assert shown["c"] == explained["coefficients"][3][1]


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p.title)
def test_every_panel_works_on_a_real_run(watched, panel) -> None:
    _, prometheus = watched
    for expression in expressions(panel):
        found = prometheus.query(expression)
        assert found or panel.title in SILENT, expression


def test_a_real_runs_report_has_its_answers_before_and_after(watched, tmp_path) -> None:
    services, _ = watched
    out = tmp_path / "report.html"
    config = services.settings.data_dir / "iterpo.toml"
    done = CliRunner().invoke(run.command, ["report", "watched", "--out", str(out), "--config", str(config), "--json"])
    assert done.exit_code == 0, done.output
    described = services.learner.describe("watched")
    before, after = (described["heldout"][when] for when in ("before", "after"))
    rows = services.learner.get("watched").rows
    assert (before["version"], after["version"]) == (0, max(row.policy_version for row in rows if row.promoted))
    assert len(before["answers"]) == len(after["answers"]) == 4
    rewards = [answer["reward"] for answer in after["answers"]]
    assert sum(rewards) / 4 == pytest.approx([row.heldout_reward for row in rows if row.promoted][-1])
    text = out.read_text()
    assert "<svg" in text
    assert f"version {after['version']}" in text
    assert described["config"]["labeler"] == "e"


def test_what_a_real_run_trained_on_is_explained_to_its_own_objective(watched) -> None:
    """GRPO in one step: the numbers that the learner reported are those that the record gives."""
    services, _ = watched
    last = services.learner.get("watched").rows[-1]
    record, kept = services.learner.batch("watched")
    assert (record["iteration"], kept) == (last.iteration, [1, 2, 3])
    found = services.learner.explain_batch("watched")
    assert found["metrics"]["advantage_abs_mean"] == pytest.approx(last.metrics["advantage_abs_mean"], abs=1e-5)
    texts = ["".join(s["tokens"]) for s in record["batch"]["sequences"]]
    assert [text.startswith(a["text"][:8]) for text, a in zip(texts, record["answers"], strict=True)] == [True] * 8
    beside = services.learner.explain_batch("watched", 0, "dr_grpo")
    assert beside["normalizer"] == "constant"
