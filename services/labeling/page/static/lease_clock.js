// How long the task may be kept: extended while the person is active, counted down in the last minute.
const LAST_SECONDS = 60;
const TICK_MS = 500;
const RETRY_MS = 5_000;

export class LeaseClock {
  #element;
  #extend;
  #onExpired;
  #timer = null;
  #end = 0;
  #lease = 0;
  #active = 0;
  #tried = 0;

  // `extend()` resolves to the seconds that are left then, or to null when it could not be done.
  constructor(element, { extend, onExpired }) {
    this.#element = element;
    this.#extend = extend;
    this.#onExpired = onExpired;
    for (const event of ["keydown", "pointerdown", "pointermove", "wheel", "touchmove", "input"]) {
      document.addEventListener(event, () => { this.#active = Date.now(); }, { passive: true });
    }
  }

  start(secondsLeft, leaseSeconds) {
    this.stop();
    this.#lease = leaseSeconds;
    this.#tried = 0;
    this.#set(secondsLeft);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
  }

  stop() {
    clearInterval(this.#timer);
    this.#element.hidden = true;
  }

  #set(secondsLeft) {
    this.#end = Date.now() + secondsLeft * 1000;
  }

  async #tick() {
    const now = Date.now();
    const left = (this.#end - now) / 1000;
    if (left <= 0) {
      this.stop();
      this.#onExpired();
      return;
    }
    const last = left <= Math.min(LAST_SECONDS, this.#lease / 2);
    this.#element.hidden = !last;
    this.#element.textContent = `Your time for this task ends in ${Math.ceil(left)} s. It is extended when you go on.`;
    const active = now - this.#active < Math.min(LAST_SECONDS, this.#lease) * 1000;
    if (!last || !active || now - this.#tried < RETRY_MS) return;
    this.#tried = now;
    const timer = this.#timer;
    const extended = await this.#extend();
    if (extended !== null && timer === this.#timer) {
      this.#tried = 0;
      this.#set(extended);
      this.#element.hidden = true;
    }
  }
}
