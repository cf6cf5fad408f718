// The annotators' page: sign in, get a task, choose, get the next one. What is asked of the server is in api.js, what
// must survive in outbox.js, drafts.js and history.js.
import { act, newId, read, Refused } from "./api.js";
import { Drafts } from "./drafts.js";
import { Help } from "./help.js";
import { History } from "./history.js";
import { Keys } from "./keys.js";
import { LeaseClock } from "./lease_clock.js";
import { memory } from "./memory.js";
import { Outbox } from "./outbox.js";
import { Stopwatch } from "./stopwatch.js";
import { TaskView } from "./task_view.js";
import { themeButton } from "./theme.js";

const NAME = "iterpo.name";
const LEASE = "iterpo.lease";
const LOOK_AGAIN_MS = 4_000;
const LONGEST_WAIT_MS = 5_000;
const SAVE_MS = 5_000;
// A second press of a key must not label a task that nobody has seen yet.
const UNSEEN_MS = 250;

// action: [outcome, strength (null: the one chosen with 1 2 3), what it is called]
const CHOICES = {
  a: ["first", null, "A better"],
  b: ["second", null, "B better"],
  a_much: ["first", 3, "A much better"],
  b_much: ["second", 3, "B much better"],
  tie: ["tie", 0, "Tie"],
  both_bad: ["both_bad", 0, "Both bad"],
  skip: ["skip", 0, "Skipped"],
};
const WITHOUT_TASK = new Set(["undo", "help"]);

const byId = (id) => document.getElementById(id);
const main = byId("main");
const sections = { "signed-out": byId("sign-in"), empty: byId("empty"), ready: byId("task") };
const view = new TaskView();
const stopwatch = new Stopwatch();
const clock = new LeaseClock(byId("countdown"), { extend, onExpired });

let me = null;
let outbox = null;
let drafts = null;
let history = null;
let shownAt = 0;
let lookAgain = null;

const keys = new Keys(() => {
  showKeys();
  help.show();
});
const help = new Help(keys);

function setState(state) {
  main.dataset.state = state;
  const shown = sections[state];
  // While something is on its way the task stays where it is.
  if (shown) for (const section of Object.values(sections)) section.hidden = section !== shown;
  for (const button of byId("task").querySelectorAll(".choices button")) button.disabled = state !== "ready";
  clearTimeout(lookAgain);
  if (state === "empty") lookAgain = setTimeout(lookIfSeen, LOOK_AGAIN_MS);
}

// For everybody, and read out by screen readers without interrupting.
function say(text) {
  byId("status").textContent = text;
}

// What must not be missed: stays until it is over.
function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function sleep(milliseconds) {
  return new Promise((resolve) => { setTimeout(resolve, milliseconds); });
}

// Runs `ask` until the server can be reached; null when a sign-in is needed first. A Refused is thrown.
async function patiently(ask) {
  for (let wait = 500; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      const answer = await ask();
      if (wait > 500) notice("");
      return answer;
    } catch (error) {
      if (error instanceof Refused && error.signedOut) {
        await askToSignIn(me ? "Your session has ended. Sign in again: nothing is lost." : "");
        return null;
      }
      if (error instanceof Refused && error.status !== 429) throw error;
      notice("The server cannot be reached. This page tries again by itself; nothing is lost.");
      await sleep(wait);
    }
  }
}

async function start() {
  setState("starting");
  const door = await patiently(() => read("/api/sign-in"));
  if (!door.signed_in) {
    await askToSignIn("");
    return;
  }
  const found = await patiently(() => read("/api/me"));
  if (found === null) return;
  me = found;
  outbox = new Outbox(me.name, { onWaiting, onSettled, onSignedOut });
  drafts = new Drafts(me.name);
  history = new History(me.name);
  showFigures(me);
  byId("to-lead").hidden = me.role === "annotator";
  for (const id of ["figures", "sign-out"]) byId(id).hidden = false;
  byId("sign-out").textContent = `Sign out ${me.name}`;
  await deliver(remembered());
}

// Sends what is waiting, then shows a task.
async function deliver(leaseId = "") {
  setState("sending");
  if (await outbox.flush()) await next(leaseId);
}

async function next(leaseId = "") {
  setState("loading");
  let answer;
  try {
    answer = await patiently(() => act("/api/next", { lease_id: leaseId }));
  } catch (error) {
    showEmpty("You cannot label at the moment", error.message);
    return;
  }
  if (answer === null) return;
  byId("open-tasks").textContent = answer.open_tasks;
  if (answer.task) showTask(answer.task);
  else if (answer.open_tasks) {
    showEmpty("No task for you at the moment", "Other people hold the open tasks, or you have labelled them already.");
  } else showEmpty("No task at the moment", "Every task has its labels. New ones appear here by themselves.");
}

function showTask(task, draft = drafts.get(task.task_id)) {
  view.show(task, draft);
  remember(task.lease_id);
  // Which task since the page was loaded: what a test waits for.
  main.dataset.shown = Number(main.dataset.shown ?? 0) + 1;
  setState("ready");
  shownAt = performance.now();
  stopwatch.start(draft?.seconds ?? 0);
  clock.start(task.seconds_left, task.lease_seconds);
  window.scrollTo(0, 0);
  byId("task-title").focus({ preventScroll: true });
}

function showEmpty(title, text) {
  const fresh = sections.empty.hidden;
  leave();
  byId("empty-title").textContent = title;
  byId("empty-text").textContent = text;
  setState("empty");
  if (fresh) byId("empty-title").focus();
}

// No task is on the screen any more.
function leave() {
  view.task = null;
  clock.stop();
  remember("");
  byId("to-guideline").hidden = true;
}

function choose(action) {
  if (performance.now() - shownAt < UNSEEN_MS) return;
  const [outcome, strength, called] = CHOICES[action];
  const body = {
    request_id: newId(),
    lease_id: view.task.lease_id,
    outcome,
    strength: strength ?? view.strength,
    rationale: view.rationale,
    aspects: view.aspects,
    duration_seconds: Math.round(stopwatch.seconds * 1000) / 1000,
  };
  outbox.put({ body, called, draft: { rationale: body.rationale, aspects: body.aspects, strength: view.strength } });
  drafts.remove(view.task.task_id);
  notice("");
  leave();
  deliver();
}

function onWaiting(count) {
  const what = count === 1 ? "Your label is" : `${count} labels are`;
  notice(`The server cannot be reached. ${what} kept in this browser and sent again by itself.`);
}

function onSettled(label, answer) {
  notice("");
  if (answer.accepted) {
    history.add(answer.event_id, label.draft);
    say(`${label.called}: recorded.`);
  } else {
    const why = answer instanceof Refused ? answer.message : answer.explanation;
    notice(`“${label.called}” was not counted. ${why}`);
  }
  read("/api/me").then(showFigures, () => { /* The next label brings them. */ });
}

function onSignedOut() {
  askToSignIn("Your session has ended. Sign in again: your label is kept here and sent then.");
}

async function undo() {
  const entry = history.last;
  if (entry === null) {
    say("There is nothing to take back.");
    return;
  }
  saveDraft();
  setState("loading");
  try {
    const answer = await patiently(() => act("/api/undo", { event_id: entry.event_id, request_id: entry.request_id }));
    if (answer === null) return;
    history.remove(entry.event_id);
    notice("");
    if (answer.task) {
      showTask(answer.task, entry.draft);
      say("Your last label is taken back. Choose again.");
    } else await next();
  } catch (error) {
    history.remove(entry.event_id);
    notice(`It could not be taken back. ${error.message}`);
    await next(remembered());
  }
  read("/api/me").then(showFigures, () => { /* The next label brings them. */ });
}

function askToRelease() {
  byId("release-error").textContent = "";
  byId("release-text").value = "";
  byId("release").showModal();
}

async function release(event) {
  event.preventDefault();
  const chosen = byId("release-form").elements.namedItem("reason").value;
  const reason = [chosen, byId("release-text").value.trim()].filter(Boolean).join(" ");
  if (!reason) {
    byId("release-error").textContent = "Say in a few words why.";
    byId("release-text").focus();
    return;
  }
  const { lease_id, task_id } = view.task;
  byId("release").close();
  setState("sending");
  try {
    if (await patiently(() => act("/api/release", { lease_id, reason })) === null) return;
    drafts.remove(task_id);
    say("You gave the task back.");
  } catch (error) {
    notice(error.message);
  }
  leave();
  await next();
}

async function extend() {
  try {
    return (await act("/api/extend", { lease_id: view.task.lease_id })).seconds_left;
  } catch {
    // Out of reach, or expired a moment ago: the countdown goes on, and says what holds at its end.
    return null;
  }
}

function onExpired() {
  notice("Your time for this task has run out. Choose all the same: your label counts if nobody took your place.");
}

function saveDraft() {
  if (view.task === null) return;
  const { rationale, aspects, strength } = view;
  drafts.set(view.task.task_id, { rationale, aspects, strength, seconds: stopwatch.seconds });
}

async function askToSignIn(why) {
  saveDraft();
  leave();
  const { needs_token: needsToken } = await patiently(() => read("/api/sign-in"));
  if (why) notice(why);
  byId("name").value = me?.name ?? memory.get(NAME) ?? "";
  byId("token-field").hidden = !needsToken;
  byId("name-hint").hidden = !needsToken;
  setState("signed-out");
  byId(needsToken && byId("name").value ? "token" : "name").focus();
}

async function signIn(event) {
  event.preventDefault();
  const button = byId("sign-in").querySelector("[type=submit]");
  button.disabled = true;
  try {
    const signedIn = await act("/api/sign-in", { name: byId("name").value, token: byId("token").value });
    byId("token").value = "";
    memory.set(NAME, signedIn.name);
    notice("");
    say(`Signed in as ${signedIn.name}.`);
    await start();
  } catch (error) {
    notice(error.message);
  } finally {
    button.disabled = false;
  }
}

async function signOut() {
  if (outbox.waiting.length) {
    notice("A label is still on its way. Sign out when the server has it.");
    return;
  }
  saveDraft();
  try {
    await act("/api/sign-out");
  } catch (error) {
    if (!(error instanceof Refused)) {
      notice(error.message);
      return;
    }
  }
  for (const id of ["figures", "sign-out", "to-lead"]) byId(id).hidden = true;
  me = null;
  say("You are signed out.");
  await askToSignIn("");
}

function showFigures(figures) {
  byId("labels-today").textContent = figures.today;
  byId("labels-all").textContent = figures.labels;
  byId("median-seconds").textContent = figures.labels ? `${figures.median_seconds.toFixed(1)} s` : "–";
}

function showKeys() {
  for (const button of document.querySelectorAll("[data-action]")) {
    const key = keys.key(button.dataset.action);
    let shown = button.querySelector("kbd");
    if (!shown) {
      shown = document.createElement("kbd");
      button.append(" ", shown);
    }
    shown.textContent = key;
    const upper = key !== key.toLowerCase();
    button.setAttribute("aria-keyshortcuts", upper ? `Shift+${key}` : key.toUpperCase());
  }
  document.querySelector("[data-key-of=rationale]").textContent = keys.key("rationale");
}

function lookIfSeen() {
  // A hidden page must not take a task away from others.
  if (document.hidden || document.querySelector("dialog[open]")) setState("empty");
  else next();
}

function remember(leaseId) {
  try {
    sessionStorage.setItem(LEASE, leaseId);
  } catch {
    // A reload then shows the oldest task that the person holds.
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(LEASE) ?? "";
  } catch {
    return "";
  }
}

const OTHER_ACTIONS = {
  strength_1: () => strengthen(1),
  strength_2: () => strengthen(2),
  strength_3: () => strengthen(3),
  undo,
  rationale: () => byId("rationale").focus(),
  diff: () => say(view.toggleDiff()),
  markdown: () => say(view.toggleMarkdown()),
  guideline: () => (byId("to-guideline").hidden ? say("This task has no guideline.") : byId("guideline").showModal()),
  release: askToRelease,
  help: () => help.open(),
};

function strengthen(level) {
  view.setStrength(view.strength === level ? 0 : level);
  saveDraft();
  say(view.strength ? `The next choice: ${["slight", "clear", "strong"][level - 1]}.` : "The next choice: no strength.");
}

function perform(action) {
  const { state } = main.dataset;
  const allowed = state === "ready" || action === "help" || (state === "empty" && WITHOUT_TASK.has(action));
  if (!allowed) return;
  if (CHOICES[action]) choose(action);
  else OTHER_ACTIONS[action]();
}

function listen() {
  document.addEventListener("keydown", (event) => {
    const action = keys.action(event);
    if (action === null) return;
    event.preventDefault();
    perform(action);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.action) perform(button.dataset.action);
    if (button && "close" in button.dataset) button.closest("dialog").close();
  });
  byId("rationale").addEventListener("keydown", (event) => {
    if (event.key === "Escape") byId("task-title").focus({ preventScroll: true });
  });
  byId("task").addEventListener("input", saveDraft);
  byId("sign-in").addEventListener("submit", signIn);
  byId("sign-out").addEventListener("click", signOut);
  byId("look-again").addEventListener("click", () => next());
  byId("release-form").addEventListener("submit", release);
  window.addEventListener("pagehide", saveDraft);
  setInterval(() => { if (main.dataset.state === "ready") saveDraft(); }, SAVE_MS);
}

themeButton(byId("theme"));
showKeys();
listen();
start();
