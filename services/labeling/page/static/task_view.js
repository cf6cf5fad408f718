// A task on the screen: prompt, both answers in one of three views, aspects, and what was begun.
import { formatted, marked, plain } from "./texts.js";
import { memory } from "./memory.js";

const VIEW = "iterpo.view";
const ASPECT_CHOICES = [["", "–"], ["first", "A"], ["tie", "Tie"], ["second", "B"]];
const byId = (id) => document.getElementById(id);

export class TaskView {
  task = null;
  strength = 0;
  #markdown = memory.get(VIEW)?.markdown ?? true;
  #diff = memory.get(VIEW)?.diff ?? false;

  show(task, draft) {
    this.task = task;
    byId("prompt").replaceChildren(...task.prompt.map((message) => promptMessage(message, task.prompt.length > 1)));
    this.#aspects(task.guideline.aspects, draft?.aspects ?? {});
    byId("rationale").value = draft?.rationale ?? "";
    this.setStrength(draft?.strength ?? 0);
    byId("to-guideline").hidden = !task.guideline.html;
    byId("guideline-text").replaceChildren(formatted(task.guideline.html));
    byId("guideline-title").textContent = task.guideline.name ? `Guideline: ${task.guideline.name}` : "Guideline";
    byId("guideline-version").textContent = task.guideline.version ? `Version ${task.guideline.version}` : "";
    this.#render();
  }

  // Returns what to tell the person.
  toggleMarkdown() {
    this.#markdown = !this.#markdown;
    this.#render();
    return this.#markdown ? "Answers are formatted." : "Answers are shown as plain text.";
  }

  toggleDiff() {
    if (!this.task.diff && !this.#diff) return "These answers are too long to be compared word by word.";
    this.#diff = !this.#diff;
    this.#render();
    return this.#diff ? "Where the answers differ is marked." : "Differences are no longer marked.";
  }

  // The same strength again takes it back.
  setStrength(strength) {
    this.strength = strength;
    for (const level of [1, 2, 3]) {
      document.querySelector(`[data-action="strength_${level}"]`).setAttribute("aria-pressed", String(level === strength));
    }
  }

  get rationale() {
    return byId("rationale").value;
  }

  get aspects() {
    const chosen = [...byId("aspect-rows").querySelectorAll("input:checked")].filter((input) => input.value);
    return Object.fromEntries(chosen.map((input) => [input.dataset.aspect, input.value]));
  }

  #render() {
    memory.set(VIEW, { markdown: this.#markdown, diff: this.#diff });
    const diff = this.#diff && this.task.diff;
    press("diff", Boolean(diff));
    press("markdown", this.#markdown && !diff);
    this.task.answers.forEach((answer, index) => {
      const article = byId(index === 0 ? "answer-a" : "answer-b");
      const shown = diff ? marked(diff[index]) : this.#markdown ? formatted(answer.html) : plain(answer.text);
      article.querySelector("[data-part=text]").replaceChildren(shown);
      const notes = [
        answer.text.trim() ? "" : "This answer is empty.",
        answer.truncated ? "This answer was cut off at its longest allowed length." : "",
        answer.formatted || !this.#markdown ? "" : "Too long or too intricate to be formatted: shown as plain text.",
      ].filter(Boolean);
      const note = article.querySelector("[data-part=note]");
      note.hidden = notes.length === 0;
      note.textContent = notes.join(" ");
    });
  }

  #aspects(names, chosen) {
    byId("aspects").hidden = names.length === 0;
    byId("aspect-rows").replaceChildren(...names.map((name, index) => aspectRow(name, index, chosen[name] ?? "")));
  }
}

function press(action, pressed) {
  document.querySelector(`[data-action="${action}"]`).setAttribute("aria-pressed", String(pressed));
}

function promptMessage(message, several) {
  const block = document.createElement("div");
  block.className = "message";
  if (several || message.role !== "user") {
    const role = document.createElement("p");
    role.className = "role";
    role.textContent = message.role;
    block.append(role);
  }
  const text = document.createElement("div");
  text.className = "text";
  text.append(formatted(message.html));
  block.append(text);
  return block;
}

function aspectRow(name, index, chosen) {
  const row = document.createElement("fieldset");
  row.className = "aspect";
  const legend = document.createElement("legend");
  legend.textContent = name;
  row.append(legend);
  for (const [value, shown] of ASPECT_CHOICES) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `aspect-${index}`, value, checked: value === chosen });
    input.dataset.aspect = name;
    if (!value) input.setAttribute("aria-label", "not rated");
    label.append(input, shown);
    row.append(label);
  }
  return row;
}
