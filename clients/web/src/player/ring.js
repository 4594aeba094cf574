const FIRST_SAMPLES = 2 ** 15;

/** A ring buffer of samples that grows instead of dropping any. */
export class Ring {
  #samples = new Float32Array(FIRST_SAMPLES);
  #start = 0;
  #length = 0;

  /** Samples that can be read. */
  get length() {
    return this.#length;
  }

  /** @param {Float32Array} pcm */
  write(pcm) {
    if (this.#length + pcm.length > this.#samples.length) this.#grow(this.#length + pcm.length);
    const at = (this.#start + this.#length) % this.#samples.length;
    const head = Math.min(pcm.length, this.#samples.length - at);
    this.#samples.set(pcm.subarray(0, head), at);
    this.#samples.set(pcm.subarray(head), 0);
    this.#length += pcm.length;
  }

  /**
   * Move samples to the start of `out`; the rest of it is left alone.
   * @param {Float32Array} out
   * @returns {number} how many
   */
  read(out) {
    const count = Math.min(out.length, this.#length);
    const head = Math.min(count, this.#samples.length - this.#start);
    out.set(this.#samples.subarray(this.#start, this.#start + head), 0);
    out.set(this.#samples.subarray(0, count - head), head);
    this.#start = (this.#start + count) % this.#samples.length;
    this.#length -= count;
    return count;
  }

  clear() {
    this.#start = 0;
    this.#length = 0;
  }

  /** @param {number} least */
  #grow(least) {
    let size = this.#samples.length;
    while (size < least) size *= 2;
    const samples = new Float32Array(size);
    const count = this.read(samples);
    this.#samples = samples;
    this.#start = 0;
    this.#length = count;
  }
}
