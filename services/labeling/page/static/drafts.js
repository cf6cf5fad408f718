// What was begun for a task (reason, aspects, strength, seconds), kept by task until it is labelled: a reload loses
// nothing. Texts of tasks that somebody else finished meanwhile go after two days.
import { memory } from "./memory.js";

const KEPT_MS = 2 * 24 * 3600 * 1000;

export class Drafts {
  #prefix;

  constructor(name) {
    this.#prefix = `iterpo.draft.${name}.`;
    for (const key of memory.keys("iterpo.draft.")) {
      if (Date.now() - (memory.get(key)?.at ?? 0) > KEPT_MS) memory.remove(key);
    }
  }

  get(taskId) {
    return memory.get(this.#prefix + taskId);
  }

  set(taskId, draft) {
    memory.set(this.#prefix + taskId, { ...draft, at: Date.now() });
  }

  remove(taskId) {
    memory.remove(this.#prefix + taskId);
  }
}
