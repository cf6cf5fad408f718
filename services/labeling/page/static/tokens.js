// What an iteration was trained on, token by token: each coloured by its gradient, its number term by term, and beside
// it what another method would have done. Numbers are the learner's own (Explain); nothing is computed here.
import { Refused, read } from "./api.js";
import { byId, complain, notice, numbers } from "./dom.js";
import { themeButton } from "./theme.js";

const SHADES = 6;
const LOGPROBS = {
  logprobs: "current policy", old_logprobs: "as the iteration began", behaviour_logprobs: "sampler",
  reference_logprobs: "reference", values: "critic’s value", reference_kl: "KL to the reference",
};
const asked = new URLSearchParams(location.search);
const runId = asked.get("run") ?? asked.get("run_id") ?? "";
let record = null;
let methods = [];
let tokens = [];
let asks = 0;

function shown(value) {
  return value === null || value === undefined ? "–" : String(Number(value.toPrecision(6)));
}

function make(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

function shade(value, largest) {
  if (!value || !largest) return "";
  const level = Math.min(SHADES, Math.ceil((SHADES * Math.abs(value)) / largest));
  return ` ${value > 0 ? "up" : "down"}-${level}`;
}

// Answers in the batch's order, each under its prompt; a line of tokens for every method.
function showAnswers() {
  const { sequences } = record.batch;
  const largest = methods.map(({ gradient = [] }) => gradient.flat().reduce((most, g) => Math.max(most, Math.abs(g)), 0));
  const groups = new Map();
  tokens = methods.map(() => sequences.map(() => []));
  sequences.forEach((sequence, index) => {
    const answer = record.answers[index];
    if (!answer) return;
    if (!groups.has(sequence.group)) groups.set(sequence.group, newGroup(sequence.group, answer.prompt));
    const line = make("div", "answer-line");
    const role = sequence.role ? `${sequence.role}, ` : "";
    const words = `Answer ${index + 1}: ${role}reward ${shown(sequence.reward)}, by version ${answer.policy_version}`;
    line.append(make("p", "hint", words + (sequence.truncated ? ", cut at the limit" : "")));
    methods.forEach((method, which) => {
      if (methods.length > 1) line.append(make("p", "hint method-name", method.method));
      line.append(newTokens(sequence, index, method, which, largest[which], words));
    });
    groups.get(sequence.group).append(line);
  });
  byId("answers").replaceChildren(...groups.values());
  const first = tokens[0].find((line) => line.length)?.[0];
  if (first) first.tabIndex = 0;
}

function newGroup(name, prompt) {
  const group = make("section", "card group");
  const details = document.createElement("details");
  details.append(make("summary", "", `Prompt ${name}`), make("p", "asked", prompt));
  group.append(details);
  return group;
}

function newTokens(sequence, index, method, which, largest, words) {
  const line = make("div", "tokens");
  line.setAttribute("role", "listbox");
  line.setAttribute("aria-label", `${method.method}. ${words}`);
  line.dir = "auto";
  sequence.tokens.forEach((text, place) => {
    const token = make("span", `token${shade(method.gradient?.[index][place], largest)}`, text);
    token.setAttribute("role", "option");
    token.setAttribute("aria-selected", "false");
    token.tabIndex = -1;
    token.dataset.at = `${which}/${index}/${place}`;
    tokens[which][index].push(token);
    line.append(token);
  });
  return line;
}

function showToken(token) {
  const [, index, place] = token.dataset.at.split("/").map(Number);
  for (const chosen of document.querySelectorAll('.token[aria-selected="true"]')) {
    chosen.setAttribute("aria-selected", "false");
    chosen.tabIndex = -1;
  }
  for (const line of tokens) line[index][place].setAttribute("aria-selected", "true");
  token.tabIndex = 0;
  const sequence = record.batch.sequences[index];
  byId("detail-title").textContent = `“${sequence.tokens[place]}”`;
  byId("detail-place").textContent = `token ${place + 1} of ${sequence.tokens.length} of answer ${index + 1}`;
  const known = Object.entries(LOGPROBS).filter(([name]) => sequence[name]);
  numbers(byId("detail-logprobs"), known.map(([name, words]) => [words, sequence[name][place]]), shown);
  byId("detail-methods").replaceChildren(...methods.map((method) => newTerms(method, index, place)));
  byId("detail").dataset.at = `${index}/${place}`;
}

function newTerms(method, index, place) {
  const section = make("section");
  section.dataset.method = method.method;
  if (!method.gradient) {
    section.append(make("h3", "", method.method), make("p", "hint", method.reason));
    return section;
  }
  section.append(make("h3", "", `${method.method}, ${method.normalizer}`), make("code", "", method.formula));
  const parameters = Object.entries(method.parameters).map(([name, value]) => `${name} ${value}`).join(", ");
  section.append(make("p", "hint", parameters));
  const at = (lists) => lists[index][place];
  const list = make("dl", "numbers");
  const terms = Object.entries(method.terms).map(([name, lists]) => [name, at(lists)]);
  const made = [["c", at(method.coefficients)], ["gradient", at(method.gradient)]];
  numbers(list, [...terms, ...made], shown);
  const { method: own, correction, kl, normalizer } = Object.fromEntries(terms);
  section.append(list, make("p", "made",
    `c = ${shown(own)} × ${shown(correction)} + ${shown(kl)} = ${shown(made[0][1])}; × ${shown(normalizer)} = ${shown(made[1][1])}`));
  return section;
}

function move(event) {
  if (!event.target.dataset.at) return;
  const [which, index, place] = event.target.dataset.at.split("/").map(Number);
  const line = tokens[which];
  const next = (from, step) => {
    for (let at = from + step; at >= 0 && at < line.length; at += step) if (line[at].length) return at;
    return from;
  };
  const onLine = (at, wanted) => line[at][Math.min(Math.max(wanted, 0), line[at].length - 1)];
  const to = {
    ArrowRight: () => (place + 1 < line[index].length ? onLine(index, place + 1) : onLine(next(index, 1), 0)),
    ArrowLeft: () => (place ? onLine(index, place - 1) : onLine(next(index, -1), Infinity)),
    ArrowDown: () => onLine(next(index, 1), place),
    ArrowUp: () => onLine(next(index, -1), place),
    Home: () => onLine(index, 0),
    End: () => onLine(index, Infinity),
  }[event.key];
  if (!to) return;
  event.preventDefault();
  to().focus();
}

function explained(iteration, method, settings = []) {
  const query = new URLSearchParams({ run_id: runId, iteration, method });
  for (const setting of settings) query.append("set", setting);
  return read(`/api/explain?${query}`);
}

// A batch that no method can be worked out on (a log-prob of minus infinity) is what one most wants to look at.
function unexplained(error) {
  if (error instanceof Refused && error.reason === "BAD_BATCH") return { explanation: { reason: error.message } };
  throw error;
}

async function compare() {
  const other = byId("beside").value;
  const settings = byId("set").value.split(/[\s,]+/).filter(Boolean);
  await ask(async () => {
    const own = methods[0];
    const found = other ? await explained(record.iteration, other, settings) : null;
    return () => {
      methods = found ? [own, found.explanation] : [own];
      const focused = document.activeElement.dataset.at;
      showAnswers();
      const chosen = byId("detail").dataset.at;
      if (chosen) showToken(document.querySelector(`[data-at="0/${chosen}"]`));
      if (focused) document.querySelector(`[data-at="${focused}"]`)?.focus();
    };
  });
}

// `work` asks the server and returns what shows the answer. Answers may come in another order than they were asked
// for: only the last one asked for is shown.
async function ask(work) {
  asks += 1;
  const mine = asks;
  byId("main").dataset.state = "working";
  try {
    const show = await work();
    if (mine !== asks) return;
    notice("");
    show();
  } catch (error) {
    if (mine !== asks) return;
    complain(error);
  }
  byId("main").dataset.state = "ready";
}

async function open(iteration) {
  let shows = false;
  await ask(async () => {
    const query = new URLSearchParams({ run_id: runId, iteration });
    const [found, own] = await Promise.all([read(`/api/batch?${query}`), explained(iteration, "").catch(unexplained)]);
    return () => {
      record = found.record;
      methods = [{ method: record.method, ...own.explanation }];
      const options = found.kept.reverse().map((each) => new Option(each, each));
      byId("iteration").replaceChildren(...options);
      byId("iteration").value = record.iteration;
      byId("title").textContent = `${runId}, iteration ${record.iteration}: ${methods[0].method}`;
      history.replaceState(null, "", `/tokens?${new URLSearchParams({ run: runId, iteration: record.iteration })}`);
      delete byId("detail").dataset.at;
      showAnswers();
      shows = true;
    };
  });
  if (shows && byId("beside").value) await compare();
}

themeButton(byId("theme"));
byId("back").href = `/runs?${new URLSearchParams({ run: runId })}`;
byId("answers").addEventListener("focusin", (event) => { if (event.target.dataset.at) showToken(event.target); });
byId("answers").addEventListener("click", (event) => { if (event.target.dataset.at) event.target.focus(); });
byId("answers").addEventListener("keydown", move);
byId("iteration").addEventListener("change", () => open(byId("iteration").value));
byId("beside").addEventListener("change", compare);
byId("set").addEventListener("change", compare);
byId("choose").addEventListener("submit", (event) => event.preventDefault());
if (runId) {
  await open(asked.get("iteration") ?? 0);
} else {
  notice("No run is named. Choose one on the run page, and there a point of a curve; or write /tokens?run=NAME.");
  byId("main").dataset.state = "ready";
}
if (record) {
  const { methods: known } = await read("/api/methods");
  byId("beside").append(...known.map(({ name }) => new Option(name, name)));
}
