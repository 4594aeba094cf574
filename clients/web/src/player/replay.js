/** Plays samples once, beside the dialogue, which is held meanwhile. */
export class Replay {
  #context;
  #output;
  #hold;
  /** @type {{source: AudioBufferSourceNode, gain: GainNode, done: () => void} | null} */
  #current = null;

  /**
   * @param {AudioContext} context
   * @param {AudioNode} output
   * @param {(held: boolean) => void} hold  holds the dialogue, or lets it go on
   */
  constructor(context, output, hold) {
    this.#context = context;
    this.#output = output;
    this.#hold = hold;
  }

  /**
   * Resolves when it was heard, or `end` was called. What was playing before ends.
   * @param {Float32Array<ArrayBuffer>} pcm
   * @param {number} sampleRate  Hz
   * @returns {Promise<void>}
   */
  play(pcm, sampleRate) {
    this.end(20);
    const buffer = new AudioBuffer({ length: pcm.length, sampleRate });
    buffer.copyToChannel(pcm, 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    const gain = new GainNode(this.#context);
    source.connect(gain).connect(this.#output);
    this.#hold(true);
    return new Promise((resolve) => {
      const current = { source, gain, done: resolve };
      this.#current = current;
      source.onended = () => {
        if (this.#current === current) this.end(0);
        gain.disconnect();
      };
      source.start();
    });
  }

  /** @param {number} fadeMs */
  end(fadeMs) {
    const current = this.#current;
    if (current === null) return;
    this.#current = null;
    const { currentTime } = this.#context;
    const endTime = currentTime + fadeMs / 1000;
    current.gain.gain.setValueAtTime(1, currentTime).linearRampToValueAtTime(0, endTime);
    current.source.stop(endTime);
    this.#hold(false);
    current.done();
  }
}
