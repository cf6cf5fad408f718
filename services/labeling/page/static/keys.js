// Which key does what. Keys can be changed; the changes live in this browser.
import { memory } from "./memory.js";

const STORED = "iterpo.keys";

// action: [what it does, default key]. The order is the help's.
export const ACTIONS = {
  a: ["A is better", "a"],
  b: ["B is better", "b"],
  a_much: ["A is much better", "A"],
  b_much: ["B is much better", "B"],
  strength_1: ["The next choice is slight", "1"],
  strength_2: ["The next choice is clear", "2"],
  strength_3: ["The next choice is strong", "3"],
  tie: ["Both are equally good", "t"],
  both_bad: ["Both are bad", "n"],
  skip: ["Skip: I cannot tell", "s"],
  undo: ["Undo the last label", "u"],
  rationale: ["Write a reason (Esc leaves it)", "r"],
  diff: ["Show where they differ", "d"],
  markdown: ["Formatted or plain text", "m"],
  guideline: ["Read the guideline", "g"],
  release: ["Give the task back", "x"],
  help: ["This help", "?"],
};

const WRITING = "textarea, select, input:not([type=radio]):not([type=checkbox]):not([type=button])";

// The key as it is bound: the letter's case says whether Shift is held, whatever Caps Lock does. Null: not a key to bind.
export function keyOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return null;
  if (event.key.length !== 1 || event.key === " ") return null;
  const lower = event.key.toLowerCase();
  const upper = event.key.toUpperCase();
  return lower === upper ? event.key : event.shiftKey ? upper : lower;
}

export class Keys {
  #bound;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    this.#bound = this.#read();
  }

  key(action) {
    return this.#bound[action];
  }

  // The action of a key press, or null: in a text, in a dialog, held down, or bound to nothing.
  action(event) {
    if (event.repeat || event.defaultPrevented) return null;
    if (event.target.closest?.(WRITING) || document.querySelector("dialog[open]")) return null;
    const key = keyOf(event);
    return key === null ? null : Object.keys(ACTIONS).find((action) => this.#bound[action] === key) ?? null;
  }

  // Returns "" or why the key cannot be had.
  bind(action, event) {
    const key = keyOf(event);
    if (key === null) return "Use a single letter, digit or sign, without Ctrl or Alt.";
    const other = Object.keys(ACTIONS).find((each) => each !== action && this.#bound[each] === key);
    if (other) return `“${key}” is already the key of “${ACTIONS[other][0]}”. Change that one first.`;
    this.#bound[action] = key;
    memory.set(STORED, this.#bound);
    this.#onChange();
    return "";
  }

  reset() {
    memory.remove(STORED);
    this.#bound = this.#read();
    this.#onChange();
  }

  #read() {
    const stored = memory.get(STORED) ?? {};
    const entries = Object.entries(ACTIONS).map(([action, [, key]]) => [action, stored[action] ?? key]);
    const keys = entries.map(([, key]) => key);
    // A version with new actions may bring a conflict with what was stored: then the defaults hold.
    const usable = keys.every((key) => typeof key === "string" && key.length === 1) && new Set(keys).size === keys.length;
    return usable ? Object.fromEntries(entries) : Object.fromEntries(Object.entries(ACTIONS).map(([a, [, k]]) => [a, k]));
  }
}
