import { Ring } from './ring.js';

/**
 * @typedef {{type: 'playing'} | {type: 'dry'} | {type: 'underrun', turnIndex: number, gapSamples: number}
 *   | {type: 'stopped'}} PlayoutEvent
 *   Sound begins; the buffer has run empty; sound goes on after a gap inside a turn; what was asked to stop is silent.
 */

/**
 * What the audio thread does: samples in, blocks of samples out, silence where there are none. It drops nothing unless
 * it is told to stop. After silence it waits until enough is there: `startSamples`, or a turn's end, or what has come
 * within the time of `startSamples`.
 */
export class Playout {
  /** Samples to have before sound begins. */
  startSamples = 0;
  /** Samples that were played so far. */
  rendered = 0;
  #ring = new Ring();
  #notify;
  #playing = false;
  #waited = 0;
  #ended = true;
  /** @type {number | null} */
  #newestTurn = null;
  /** The turn that ran dry, and the silence since. @type {{turnIndex: number | null, samples: number} | null} */
  #gap = null;
  #fade = { total: 0, left: 0 };
  #paused = false;
  #ramp = 0;

  /** @param {(event: PlayoutEvent) => void} notify */
  constructor(notify) {
    this.#notify = notify;
  }

  get buffered() {
    return this.#ring.length;
  }

  get playing() {
    return this.#playing && !this.#paused;
  }

  /**
   * The next samples of the dialogue.
   * @param {Float32Array} pcm
   * @param {{turnIndex: number, last: boolean}} frame
   */
  push(pcm, { turnIndex, last }) {
    if (this.#gap !== null && this.#ring.length === 0 && turnIndex !== this.#gap.turnIndex) this.#gap = null;
    this.#ring.write(pcm);
    this.#newestTurn = turnIndex;
    this.#ended = last;
  }

  /**
   * No more of this turn comes.
   * @param {number} turnIndex
   */
  endTurn(turnIndex) {
    if (turnIndex !== this.#newestTurn) return;
    this.#ended = true;
    if (this.#ring.length === 0) this.#gap = null;
  }

  /**
   * Silence within `fadeSamples`, and nothing of what is here afterwards; `stopped` tells when.
   * @param {number} fadeSamples
   */
  stop(fadeSamples) {
    if (!this.playing || fadeSamples === 0) this.#flush();
    else if (this.#fade.left === 0) this.#fade = { total: fadeSamples, left: fadeSamples };
  }

  /**
   * Hold what is here, and go on with it later.
   * @param {boolean} paused
   */
  pause(paused) {
    if (paused === this.#paused) return;
    // A block's length of fading, so that nothing clicks; none if the order before this one was not carried out yet.
    if (this.#playing) this.#ramp = this.#ramp === 0 ? (paused ? -1 : 1) : 0;
    this.#paused = paused;
  }

  /**
   * Fill a block.
   * @param {Float32Array} out
   */
  render(out) {
    const ramp = this.#ramp;
    this.#ramp = 0;
    if (this.#paused && ramp >= 0) {
      out.fill(0);
      return;
    }
    const begins = !this.#playing && this.#begin(out.length);
    if (!this.#playing) {
      out.fill(0);
      if (this.#gap !== null) this.#gap.samples += out.length;
      return;
    }
    const count = this.#ring.read(out);
    out.fill(0, count);
    this.rendered += count;
    const runsDry = this.#ring.length === 0;
    if (ramp === 1 || begins === 'gap') slope(out, count, 0, 1);
    if (ramp === -1 || (runsDry && !this.#ended)) slope(out, count, 1, 0);
    if (this.#fade.left > 0) this.#fadeOut(out, count);
    else if (runsDry) this.#runDry();
  }

  /**
   * Whether sound begins now, and how.
   * @param {number} block
   * @returns {false | 'fresh' | 'gap'}
   */
  #begin(block) {
    const { length } = this.#ring;
    if (length === 0) return false;
    this.#waited += block;
    if (length < this.startSamples && this.#waited < this.startSamples && !this.#ended) return false;
    const gap = this.#gap;
    this.#gap = null;
    this.#waited = 0;
    this.#playing = true;
    if (gap !== null && gap.turnIndex !== null) {
      this.#notify({ type: 'underrun', turnIndex: gap.turnIndex, gapSamples: gap.samples });
    }
    this.#notify({ type: 'playing' });
    return gap === null ? 'fresh' : 'gap';
  }

  #runDry() {
    this.#playing = false;
    if (!this.#ended) this.#gap = { turnIndex: this.#newestTurn, samples: 0 };
    this.#notify({ type: 'dry' });
  }

  /**
   * @param {Float32Array} out
   * @param {number} count
   */
  #fadeOut(out, count) {
    const { total, left } = this.#fade;
    const faded = Math.min(count, left);
    slope(out, faded, left / total, (left - faded) / total);
    out.fill(0, faded);
    // What comes after the last faded sample was not heard.
    this.rendered -= count - faded;
    this.#fade.left -= faded;
    if (this.#fade.left === 0 || this.#ring.length === 0) this.#flush();
  }

  #flush() {
    this.#ring.clear();
    this.#fade = { total: 0, left: 0 };
    this.#playing = false;
    this.#ended = true;
    this.#gap = null;
    this.#waited = 0;
    this.#notify({ type: 'stopped' });
  }
}

/**
 * Scale the first `count` samples by a gain that goes evenly from one value to another.
 * @param {Float32Array} samples
 * @param {number} count
 * @param {number} from
 * @param {number} to
 */
function slope(samples, count, from, to) {
  for (let i = 0; i < count; i += 1) samples[i] *= from + ((to - from) * (i + 1)) / count;
}
