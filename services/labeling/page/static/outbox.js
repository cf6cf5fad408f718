// Labels on their way. Each is kept in the browser with its request id until the server has answered it: a restart of
// either side, a reload or a lost answer sends it again, and the request id makes it count once.
import { act, Refused, Unreachable } from "./api.js";
import { memory } from "./memory.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5_000;

export class Outbox {
  #key;
  #sending = null;
  #wake = () => {};

  // `onWaiting(count)` is told when the server cannot be reached, `onSettled(label, answer)` what became of a label;
  // answer is the server's, or a Refused.
  constructor(name, { onWaiting, onSettled, onSignedOut }) {
    this.#key = `iterpo.outbox.${name}`;
    this.onWaiting = onWaiting;
    this.onSettled = onSettled;
    this.onSignedOut = onSignedOut;
    window.addEventListener("online", () => this.#wake());
  }

  get waiting() {
    return memory.get(this.#key) ?? [];
  }

  // Written down before anything is sent.
  put(label) {
    memory.set(this.#key, [...this.waiting, label]);
  }

  // Resolves once everything is answered; false when a sign-in is needed first.
  flush() {
    this.#wake();
    this.#sending ??= this.#send().finally(() => { this.#sending = null; });
    return this.#sending;
  }

  async #send() {
    let wait = FIRST_WAIT_MS;
    for (let label = this.waiting[0]; label; label = this.waiting[0]) {
      let answer;
      try {
        answer = await act("/api/label", label.body);
      } catch (error) {
        if (error instanceof Refused && error.signedOut) {
          this.onSignedOut();
          return false;
        }
        if (error instanceof Unreachable || error.status === 429) {
          this.onWaiting(this.waiting.length);
          await this.#pause(wait);
          wait = Math.min(wait * 2, LONGEST_WAIT_MS);
          continue;
        }
        answer = error;
      }
      wait = FIRST_WAIT_MS;
      this.#forget(label);
      this.onSettled(label, answer);
    }
    return true;
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  // By id: another window of the same person may have sent and removed others meanwhile.
  #forget(label) {
    const left = this.waiting.filter((each) => each.body.request_id !== label.body.request_id);
    if (left.length) memory.set(this.#key, left);
    else memory.remove(this.#key);
  }
}
