/**
 * Notices that nothing is heard of a server any more. Scripts of browsers can't send WebSocket pings, so the
 * protocol's own is asked for, and only in silence.
 */
export class Heartbeat {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #intervalMs;
  #calls;
  #silent = false;
  #asked = false;
  #forgiven = false;
  #tickedAt = 0;

  /**
   * @param {number} intervalMs
   * @param {{ask: () => void, dead: () => void}} calls
   */
  constructor(intervalMs, calls) {
    this.#intervalMs = intervalMs;
    this.#calls = calls;
  }

  /** There is a new connection. */
  start() {
    this.stop();
    this.heard();
    this.#tickedAt = performance.now();
    this.#timer = setInterval(() => this.#tick(), this.#intervalMs);
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** The server has said something. */
  heard() {
    this.#silent = false;
    this.#asked = false;
    this.#forgiven = false;
  }

  #tick() {
    const now = performance.now();
    // A page that slept has not read yet what came meanwhile.
    const late = now - this.#tickedAt > 1.5 * this.#intervalMs;
    this.#tickedAt = now;
    if (this.#asked && late && !this.#forgiven) {
      this.#forgiven = true;
    } else if (this.#asked) {
      this.#calls.dead();
    } else if (this.#silent) {
      this.#asked = true;
      this.#calls.ask();
    }
    this.#silent = true;
  }
}
