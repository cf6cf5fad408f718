// The labels that can be taken back, the latest last: {event_id, request_id, draft}. The undo's request id is made with
// the entry, so that an undo whose answer was lost can be asked for again.
import { newId } from "./api.js";
import { memory } from "./memory.js";

const LONGEST = 50;

export class History {
  #key;

  constructor(name) {
    this.#key = `iterpo.labelled.${name}`;
  }

  get last() {
    return this.#entries.at(-1) ?? null;
  }

  add(eventId, draft) {
    const entries = this.#entries.filter((entry) => entry.event_id !== eventId);
    memory.set(this.#key, [...entries, { event_id: eventId, request_id: newId(), draft }].slice(-LONGEST));
  }

  remove(eventId) {
    memory.set(this.#key, this.#entries.filter((entry) => entry.event_id !== eventId));
  }

  get #entries() {
    return memory.get(this.#key) ?? [];
  }
}
