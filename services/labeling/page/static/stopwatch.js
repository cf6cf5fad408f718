// Seconds that the task was visible: time in another tab or behind a locked screen does not count.
export class Stopwatch {
  #counted = 0;
  #since = null;

  constructor() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.#go()));
  }

  start(seconds = 0) {
    this.#counted = seconds;
    this.#since = null;
    this.#go();
  }

  pause() {
    this.#counted = this.seconds;
    this.#since = null;
  }

  get seconds() {
    const running = this.#since === null ? 0 : (performance.now() - this.#since) / 1000;
    return this.#counted + running;
  }

  #go() {
    if (!document.hidden && this.#since === null) this.#since = performance.now();
  }
}
