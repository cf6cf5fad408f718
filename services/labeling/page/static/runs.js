// The run page: runs, curves that grow while a run goes on, versions with lineage and the gate's decisions.
import { Unreachable, read } from "./api.js";
import { Curve, short } from "./curves.js";
import { byId, complain, notice, numbers } from "./dom.js";
import { themeButton } from "./theme.js";

const LOOK_MS = 2_000;
const number = (row, name) => row.metrics[name];
const decided = (row, name) => row.decision?.numbers[name];
const CURVES = {
  "Reward": { train: (r) => r.train_reward, "held-out": (r) => (r.proved ? r.heldout_reward : null) },
  "KL to the base, nats a token": { KL: (r) => (r.proved ? r.kl : null) },
  "Length, tokens": {
    train: (r) => number(r, "tokens") / number(r, "completions"), "held-out": (r) => decided(r, "tokens_candidate"),
  },
  "Entropy, nats": { entropy: (r) => number(r, "entropy") },
  "Margin, nats": { margin: (r) => number(r, "margin_mean") },
  "Share of pairs told right": { accuracy: (r) => number(r, "accuracy") },
  "Clipped share": { clipped: (r) => number(r, "clip_fraction") },
  "Gradient’s norm": { norm: (r) => number(r, "grad_norm") },
  "Tokens off between engine and learner": { share: (r) => number(r, "mismatch_outside") },
  "Age of answers, versions": { mean: (r) => number(r, "policy_age_mean"), max: (r) => number(r, "policy_age_max") },
  "Waits, seconds": {
    rollouts: (r) => number(r, "wait_rollouts_seconds"), backpressure: (r) => number(r, "wait_backpressure_seconds"),
    verdict: (r) => number(r, "wait_verdict_seconds"),
  },
  "Seconds": {
    iteration: (r) => r.seconds, sampling: (r) => number(r, "sampling_seconds"),
    update: (r) => number(r, "learner_seconds"), judging: (r) => number(r, "judging_seconds"),
  },
};

let runId = new URLSearchParams(location.search).get("run") ?? "";
let rows = [];
let missing = "";
const curves = Object.fromEntries(Object.keys(CURVES).map((title) => [title, new Curve(title, openTokens)]));

function address(iteration) {
  return `/tokens?${new URLSearchParams({ run: runId, ...(iteration ? { iteration } : {}) })}`;
}

function openTokens(iteration) {
  location.href = address(iteration);
}

function showRuns(runs) {
  byId("no-runs").hidden = runs.length > 0;
  const known = [...byId("run").options].map((option) => option.value);
  for (const { run_id: id } of runs) if (!known.includes(id)) byId("run").prepend(new Option(id, id));
  if (!runs.some((run) => run.run_id === runId) && runs.length) {
    missing = runId;
    choose(runs.at(-1).run_id);
  }
  byId("run").value = runId;
}

function choose(id) {
  runId = id;
  rows = [];
  history.replaceState(null, "", `/runs?${new URLSearchParams({ run: id })}`);
}

function showRun(run) {
  const gain = `held-out ${short(run.heldout_before)} → ${short(run.heldout)}`;
  byId("run-status").textContent =
    `${run.algorithm}, ${run.status.startsWith(run.state) ? run.status : `${run.state}: ${run.status}`}. ` +
    `Iteration ${run.iteration} of ${run.iterations}, ${gain}.`;
  byId("run-status").dataset.state = run.state;
  byId("tokens").hidden = rows.length === 0;
  byId("tokens").href = address();
}

function showCurves() {
  byId("curves-section").hidden = rows.length === 0;
  for (const [title, lines] of Object.entries(CURVES)) {
    const drawn = Object.entries(lines).map(([name, value]) => [name, rows.flatMap((row) => {
      const found = value(row);
      return Number.isFinite(found) ? [[row.iteration, found]] : [];
    })]);
    curves[title].draw(Object.fromEntries(drawn.filter(([, points]) => points.length)));
  }
}

function showLast(row) {
  if (!row) return numbers(byId("last"), []);
  const gate = row.promoted ? "promoted" : row.decision ? "refused" : "no update";
  const reasons = row.decision?.reasons.length ? [["Because", row.decision.reasons.join(" ")]] : [];
  const metrics = Object.entries(row.metrics).map(([name, value]) => [name.replaceAll("_", " "), short(value)]);
  numbers(byId("last"), [["Iteration", row.iteration], ["Gate", gate], ...reasons, ...metrics]);
}

function showPolicies({ policies, total }) {
  byId("versions-left-out").hidden = policies.length >= total;
  byId("versions-left-out").textContent =
    `The newest of ${total}, and what serves. All of them: iterpo policies history`;
  byId("policies").replaceChildren(...[...policies].reverse().map((policy) => {
    const row = document.createElement("tr");
    const told = policy.decision;
    const gate = told ? `${told.promote ? "passed" : "refused"}. ${told.reasons.join(" ")}` : policy.reason;
    const cells = [
      policy.version, policy.state, policy.version ? policy.parent : "–", policy.run_id, policy.method,
      short(told?.numbers.heldout_candidate), short(told?.numbers.kl), gate,
    ];
    cells.forEach((content, place) => {
      const cell = document.createElement(place ? "td" : "th");
      if (!place) cell.scope = "row";
      cell.className = place === 5 || place === 6 ? "number" : place === 7 ? "words" : "";
      cell.textContent = content;
      row.append(cell);
    });
    return row;
  }));
}

function showLabels({ counts, labels_by_source: sources }) {
  numbers(byId("labels"), [["Open", counts.open], ["With somebody", counts.leased], ["Complete", counts.complete],
    ...Object.entries(sources)]);
}

async function showOne(wanted) {
  const asked = new URLSearchParams({ run_id: wanted, after: rows.at(-1)?.iteration ?? 0 });
  const found = await read(`/api/run?${asked}`);
  if (wanted !== runId) return;
  const last = rows.at(-1)?.iteration ?? 0;
  const fresh = found.rows.filter((row) => row.iteration > last);
  rows = [...rows, ...fresh];
  showRun(found.run);
  if (fresh.length || byId("main").dataset.state !== "ready") showCurves();
  showLast(rows.at(-1));
}

async function showRunning() {
  showRuns((await read("/api/runs")).runs);
  if (runId) await showOne(runId);
}

async function showTally() {
  showLabels(await read(`/api/tally?${new URLSearchParams({ run_id: runId })}`));
}

// Each service is asked for itself: one that is away is named, and the others' parts go on.
async function look() {
  const away = [];
  const part = async (service, work) => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      away.push(service);
    }
  };
  try {
    const wanted = runId;
    await Promise.all([
      part("learner", showRunning), part("labeling", showTally),
      part("inference", async () => showPolicies(await read("/api/policies"))),
    ]);
    if (wanted !== runId) await part("labeling", showTally);
    if (!away.length) byId("as-of").textContent = `As of ${new Date().toLocaleTimeString()}`;
    byId("main").dataset.state = "ready";
    const unknown = missing ? `There is no run “${missing}”: this is ${runId}.` : "";
    notice(away.length ? `No answer from ${away.join(", ")}: what is shown of it is old. Is it running (iterpo up)?` : unknown);
  } catch (error) {
    complain(error);
  }
}

async function keepLooking() {
  if (!document.hidden) await look();
  setTimeout(keepLooking, LOOK_MS);
}

themeButton(byId("theme"));
byId("curves").append(...Object.values(curves).map((curve) => curve.element));
byId("run").addEventListener("change", () => { missing = ""; choose(byId("run").value); showCurves(); look(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
keepLooking();
