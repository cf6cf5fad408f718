// The help: every key, and changing it.
import { ACTIONS } from "./keys.js";

export class Help {
  #dialog = document.getElementById("help");
  #rows = document.getElementById("key-rows");
  #error = document.getElementById("key-error");
  #keys;
  #waiting = null;

  constructor(keys) {
    this.#keys = keys;
    document.getElementById("reset-keys").addEventListener("click", () => {
      keys.reset();
      this.#say("Every key is as it was at first.");
    });
    this.#dialog.addEventListener("keydown", (event) => this.#capture(event));
    this.#dialog.addEventListener("close", () => { this.#waiting = null; });
    for (const action of Object.keys(ACTIONS)) this.#rows.append(this.#row(action));
    this.show();
  }

  open() {
    this.#say("");
    this.#dialog.showModal();
  }

  // After a change of keys.
  show() {
    for (const button of this.#rows.querySelectorAll("button")) {
      const action = button.dataset.bind;
      const waiting = action === this.#waiting;
      button.textContent = waiting ? "Press a key…" : this.#keys.key(action);
      button.setAttribute("aria-label", `${ACTIONS[action][0]}: ${waiting ? "press a key" : this.#keys.key(action)}. Change`);
    }
  }

  #row(action) {
    const row = document.createElement("tr");
    const what = document.createElement("td");
    what.textContent = ACTIONS[action][0];
    const cell = document.createElement("td");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.bind = action;
    button.addEventListener("click", () => {
      this.#waiting = action;
      this.#say("");
      this.show();
    });
    cell.append(button);
    row.append(what, cell);
    return row;
  }

  #capture(event) {
    if (this.#waiting === null || ["Shift", "Control", "Alt", "Meta", "CapsLock"].includes(event.key)) return;
    const action = this.#waiting;
    if (event.key !== "Tab") event.preventDefault();
    this.#waiting = null;
    const given_up = event.key === "Escape" || event.key === "Tab";
    this.#say(given_up ? "" : this.#keys.bind(action, event));
    this.show();
  }

  #say(text) {
    this.#error.textContent = text;
  }
}
