const MAX_MS = 1000;
const GROWTH = 1.5;
const DECAY = 0.7;

/**
 * How much to have before sound begins. Arrivals tell how late audio came against the schedule that its own length and
 * its first arrival make: so much, and a frame, would have been enough. An underrun makes it grow at once; stretches
 * that needed less bring it down by and by. It decides when sound begins, and never drops any.
 */
export class AdaptiveBuffer {
  #leastMs;
  #startMs;
  #frameMs;
  /** @type {number | null} */
  #firstAtMs = null;
  #audioMs = 0;
  #neededMs = 0;

  /** @param {{frameMs: number, targetMs?: number}} settings  `targetMs`: the least, and the first */
  constructor({ frameMs, targetMs = 120 }) {
    this.#frameMs = frameMs;
    this.#leastMs = Math.min(targetMs, MAX_MS);
    this.#startMs = this.#leastMs;
  }

  get startMs() {
    return this.#startMs;
  }

  /**
   * An audio frame has come.
   * @param {number} nowMs  by any clock that only goes forward
   * @param {number} durationMs
   */
  arrived(nowMs, durationMs) {
    this.#firstAtMs ??= nowMs;
    this.#neededMs = Math.max(this.#neededMs, nowMs - this.#firstAtMs - this.#audioMs);
    this.#audioMs += durationMs;
    this.#startMs = Math.max(this.#startMs, this.#enough());
  }

  /** All that came was heard: what comes next has a schedule of its own. */
  drained() {
    if (this.#firstAtMs === null) return;
    this.#startMs = Math.max(this.#leastMs, this.#enough(), this.#startMs * DECAY);
    this.#restart();
  }

  /** Sound broke off in the middle of a turn. */
  underrun() {
    this.#startMs = Math.min(MAX_MS, Math.max(this.#enough(), this.#startMs * GROWTH));
    this.#restart();
  }

  #enough() {
    return this.#neededMs === 0 ? 0 : Math.min(MAX_MS, this.#neededMs + this.#frameMs);
  }

  #restart() {
    this.#firstAtMs = null;
    this.#audioMs = 0;
    this.#neededMs = 0;
  }
}
