// The leads' page: looks at the server every few seconds. Rows stay the same elements, so that focus stays where it is.
import { act, newId, read } from "./api.js";
import { interval, sparkline } from "./charts.js";
import { byId, complain, notice, numbers } from "./dom.js";
import { themeButton } from "./theme.js";

const LOOK_MS = 4_000;
const COUNTS = {
  open: "Open", leased: "With somebody", complete: "Complete", held: "Held for the reward model", gold: "Gold tasks",
  expired_leases: "Leases that ran out",
};
const OUTCOMES = { first: "First", second: "Second", tie: "Tie", both_bad: "Both bad", skip: "Skipped" };

const rows = new Map();
let asked = null;

function percent(value) {
  return value === null ? "–" : `${Math.round(value * 100)} %`;
}

function rate({ right, total }) {
  return total ? `${right}/${total}` : "–";
}

function agreement({ value, items }) {
  return value === null ? "undefined" : `${value.toFixed(2)} (${items} items)`;
}

function showReport(report) {
  numbers(byId("queue"), Object.entries(COUNTS).map(([key, name]) => [name, report.counts[key]]));
  numbers(byId("outcomes"), Object.entries(OUTCOMES).map(([key, name]) => [name, report.labels_by_outcome[key] ?? 0]));
  numbers(byId("sources"), Object.entries(report.labels_by_source));
  numbers(byId("agreement"), [["Krippendorff’s alpha", agreement(report.agreement)]]);
  byId("agreement-words").textContent = report.agreement.undefined_because;
  numbers(byId("machines"), Object.entries(report.machines).map(([name, found]) => [name, agreement(found)]));
  const undefined_ = Object.values(report.machines).map((found) => found.undefined_because).filter(Boolean);
  if (undefined_.length) byId("agreement-words").textContent += ` ${[...new Set(undefined_)].join(" ")}`;
  showPolicies(report.policies);
}

function showPolicies(policies) {
  byId("no-policies").hidden = policies.length > 0;
  const low = Math.min(0, ...policies.map((policy) => policy.low ?? policy.strength));
  const high = Math.max(0, ...policies.map((policy) => policy.high ?? policy.strength));
  byId("policies").replaceChildren(...policies.map((policy) => {
    const row = document.createElement("tr");
    const words = `${policy.low?.toFixed(2) ?? "?"} to ${policy.high?.toFixed(2) ?? "?"}`;
    const range = { at: policy.strength, from: policy.low ?? policy.strength, to: policy.high ?? policy.strength };
    cell(row, policy.policy, "", "th");
    cell(row, policy.strength.toFixed(2), "number");
    cell(row, interval(words, { ...range, low, high, zero: 0 })).append(words);
    cell(row, percent(policy.win_rate), "number");
    cell(row, Math.round(policy.comparisons * 10) / 10, "number");
    cell(row, policy.note, "words");
    return row;
  }));
}

function cell(row, content, kind = "", tag = "td") {
  const made = document.createElement(tag);
  if (tag === "th") made.scope = "row";
  made.className = kind;
  made.append(content);
  row.append(made);
  return made;
}

function showAnnotators(annotators) {
  byId("no-annotators").hidden = annotators.length > 0;
  for (const profile of annotators) {
    if (!rows.has(profile.annotator)) {
      rows.set(profile.annotator, newRow(profile.annotator));
      byId("annotators").append(rows.get(profile.annotator).row);
    }
    fill(rows.get(profile.annotator), profile);
  }
}

function newRow(annotator) {
  const row = document.createElement("tr");
  row.dataset.annotator = annotator;
  cell(row, annotator, "", "th");
  const names = ["state", "labels", "accuracy", "history", "gold", "self", "left", "median", "fast", "weight", "reasons"];
  const text = new Set(["state", "accuracy", "history", "reasons"]);
  const cells = Object.fromEntries(names.map((name) => [name, cell(row, "", text.has(name) ? "" : "number")]));
  cells.state.className = "state";
  cells.reasons.className = "words";
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => decide(annotator, button.dataset.to));
  cell(row, button);
  return { row, cells, button };
}

function fill({ cells, button }, profile) {
  const { accuracy, left_share: left, history } = profile;
  cells.state.textContent = profile.state;
  cells.state.dataset.state = profile.state;
  cells.labels.textContent = profile.labels;
  const range = `${percent(accuracy.mean)} (${percent(accuracy.low)} to ${percent(accuracy.high)}), ${profile.judged} judged`;
  cells.accuracy.replaceChildren(
    interval(range, { at: accuracy.mean, from: accuracy.low, to: accuracy.high, low: 0, high: 1, zero: 0.5 }), range,
  );
  const shown = history.length > 1 ? sparkline(`From ${percent(history[0][1])} to ${percent(history.at(-1)[1])}`, history) : "–";
  cells.history.replaceChildren(shown);
  cells.gold.textContent = rate(profile.gold);
  cells.self.textContent = rate(profile.self_consistency);
  cells.left.textContent = percent(left.mean);
  cells.left.title = `95 %: ${percent(left.low)} to ${percent(left.high)}`;
  cells.median.textContent = profile.labels ? `${profile.median_seconds.toFixed(1)} s` : "–";
  cells.fast.textContent = percent(profile.too_fast_share);
  cells.weight.textContent = profile.weight.toFixed(2);
  cells.reasons.textContent = profile.reasons.join(" ");
  const out = profile.state === "excluded" || profile.state === "quarantined";
  button.dataset.to = out ? "readmit" : "exclude";
  button.textContent = out ? "Readmit" : "Exclude";
  button.setAttribute("aria-label", `${button.textContent} ${profile.annotator}`);
}

function decide(annotator, to) {
  asked = { annotator, to, request_id: newId() };
  const verb = to === "exclude" ? "Exclude" : "Readmit";
  byId("decide-title").textContent = `${verb} ${annotator}`;
  byId("decide-words").textContent = to === "exclude"
    ? "No label of this person counts any more, old ones included, until the person is readmitted."
    : "This person may label again, and starts anew: earlier mistakes are forgotten.";
  byId("decide-do").textContent = verb;
  byId("decide-reason").value = "";
  byId("decide-error").textContent = "";
  byId("decide").showModal();
}

async function doIt(event) {
  event.preventDefault();
  const reason = byId("decide-reason").value.trim();
  if (!reason) {
    byId("decide-error").textContent = "Give a reason: it is recorded.";
    return;
  }
  try {
    const { annotator, request_id } = asked;
    const answer = await act(`/api/${asked.to}`, { annotator, reason, request_id });
    byId("decide").close();
    byId("status").textContent = `${annotator} is ${answer.state}. ${answer.revised_preferences} preferences were made anew.`;
    await look();
  } catch (error) {
    // The request id stays: the same decision sent again counts once.
    byId("decide-error").textContent = error.message;
  }
}

async function look() {
  try {
    const [report, { annotators }] = await Promise.all([read("/api/report"), read("/api/annotators")]);
    showReport(report);
    showAnnotators(annotators);
    byId("as-of").textContent = `As of ${new Date().toLocaleTimeString()}`;
    byId("main").dataset.state = "ready";
    notice("");
  } catch (error) {
    complain(error);
  }
}

async function keepLooking() {
  if (!document.hidden) await look();
  setTimeout(keepLooking, LOOK_MS);
}

themeButton(byId("theme"));
byId("decide-form").addEventListener("submit", doIt);
byId("decide-cancel").addEventListener("click", () => byId("decide").close());
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
keepLooking();
