/**
 * @typedef {{type: 'turn' | 'turnend', turnIndex: number, atMs: number} | {type: 'drained', atMs: number}} ClockEvent
 *   A turn's first sample is heard; its last was heard; all that came was heard, and no turn is open.
 */

/**
 * Where in the dialogue the listener is. It is fed with the audio frames that will be played, in order, and with how
 * much was played by now; it has no time of its own. Silence that is not in the audio does not count, as in the
 * protocol's `played_ms`.
 */
export class PlaybackClock {
  /** @type {{turnIndex: number, end: number, first: boolean, last: boolean}[]} */
  #ahead = [];
  /** @type {number | null} */
  #newest = null;
  #newestEnded = true;
  /** @type {number | null} */
  #heardTurn = null;
  #end = 0;
  #played = 0;
  #frames = 0;
  #drained = true;
  #sampleRate;

  /** @param {number} sampleRate  Hz */
  constructor(sampleRate) {
    this.#sampleRate = sampleRate;
  }

  /** How much was heard of the session's audio. */
  get playedMs() {
    return (this.#played / this.#sampleRate) * 1000;
  }

  /** How much is there that was not heard yet. */
  get bufferedMs() {
    return ((this.#end - this.#played) / this.#sampleRate) * 1000;
  }

  /** Audio frames that were heard to their end. */
  get framesPlayed() {
    return this.#frames;
  }

  /** Samples that were pushed and not cut. */
  get endSamples() {
    return this.#end;
  }

  /** The turn that is heard or was heard last. */
  get turnIndex() {
    return this.#heardTurn;
  }

  /**
   * The next audio frame.
   * @param {{turnIndex: number, samples: number, last: boolean}} frame
   */
  push({ turnIndex, samples, last }) {
    const first = turnIndex !== this.#newest;
    this.#end += samples;
    this.#ahead.push({ turnIndex, end: this.#end, first, last });
    this.#newest = turnIndex;
    this.#newestEnded = last;
    this.#drained = false;
  }

  /**
   * No more frames of this turn will come; for turns whose last frame did not say so.
   * @param {number} turnIndex
   * @returns {ClockEvent[]}
   */
  endTurn(turnIndex) {
    const frame = this.#ahead.findLast((entry) => entry.turnIndex === turnIndex);
    if (turnIndex === this.#newest && !this.#newestEnded) {
      this.#newestEnded = true;
      if (frame === undefined) return [{ type: 'turnend', turnIndex, atMs: this.playedMs }, ...this.#rest()];
    }
    if (frame !== undefined) frame.last = true;
    return [];
  }

  /**
   * So much was played by now, in samples since the beginning. What has happened since the last call, in order.
   * @param {number} samples
   * @returns {ClockEvent[]}
   */
  advance(samples) {
    /** @type {ClockEvent[]} */
    const events = [];
    const before = this.#played;
    this.#played = Math.max(before, Math.min(samples, this.#end));
    let start = before;
    while (this.#ahead.length > 0 && start < this.#played) {
      const frame = this.#ahead[0];
      if (frame.first) {
        frame.first = false;
        this.#heardTurn = frame.turnIndex;
        events.push({ type: 'turn', turnIndex: frame.turnIndex, atMs: this.#ms(start) });
      }
      if (frame.end > this.#played) break;
      start = frame.end;
      this.#ahead.shift();
      this.#frames += 1;
      if (frame.last) events.push({ type: 'turnend', turnIndex: frame.turnIndex, atMs: this.#ms(frame.end) });
    }
    return [...events, ...this.#rest()];
  }

  /**
   * What was not played by then will not be: what comes next is heard next.
   * @param {number} samples
   * @returns {ClockEvent[]}
   */
  cut(samples) {
    const events = this.advance(samples);
    this.#ahead = [];
    this.#end = this.#played;
    this.#newestEnded = true;
    return [...events, ...this.#rest()];
  }

  /** @returns {ClockEvent[]} */
  #rest() {
    if (this.#drained || this.#ahead.length > 0 || !this.#newestEnded) return [];
    this.#drained = true;
    return [{ type: 'drained', atMs: this.playedMs }];
  }

  /** @param {number} samples */
  #ms(samples) {
    return (samples / this.#sampleRate) * 1000;
  }
}
