import { Playout } from './playout.js';

// Of the audio thread's blocks of 128 samples; about 20 ms at 24 kHz.
const REPORT_EVERY_BLOCKS = 4;

/**
 * The audio thread's end: samples come straight from the decoder, orders from the page; it tells the page how much was
 * played. Runs in an AudioWorkletGlobalScope.
 */
class PlayoutProcessor extends AudioWorkletProcessor {
  #playout = new Playout((event) => this.#tell(event));
  #epoch = 0;
  #blocks = 0;
  /** @type {number[]} */
  #stops = [];
  #alive = true;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#obey(data);
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    this.#playout.render(outputs[0][0]);
    this.#blocks += 1;
    if (this.#playout.playing && this.#blocks % REPORT_EVERY_BLOCKS === 0) this.#report('report');
    return this.#alive;
  }

  /** @param {any} order */
  #obey(order) {
    if (order.type === 'source') order.port.onmessage = (/** @type {any} */ { data }) => this.#take(data);
    else if (order.type === 'start') this.#playout.startSamples = order.samples;
    else if (order.type === 'pause') this.#pause(order.paused);
    else if (order.type === 'close') this.#alive = false;
    else if (order.type === 'stop') {
      this.#epoch = order.epoch;
      this.#stops.push(order.id);
      this.#playout.stop(order.fadeSamples);
    }
  }

  /** @param {boolean} paused */
  #pause(paused) {
    this.#playout.pause(paused);
    this.#report('report');
  }

  /** @param {any} chunk  from the decoder; of an older epoch, it was on its way when all was stopped */
  #take(chunk) {
    if (chunk.epoch !== this.#epoch) return;
    if (chunk.pcm === undefined) this.#playout.endTurn(chunk.turnIndex);
    else this.#playout.push(chunk.pcm, chunk);
  }

  /** @param {import('./playout.js').PlayoutEvent} event */
  #tell(event) {
    if (event.type === 'stopped') {
      for (const id of this.#stops.splice(0)) this.#report('stopped', { id });
    } else {
      const { type, ...more } = event;
      this.#report(type, more);
    }
  }

  /**
   * @param {string} type
   * @param {object} [more]
   */
  #report(type, more) {
    const { rendered, playing, buffered } = this.#playout;
    this.port.postMessage({ type, rendered, playing, buffered, time: currentTime, ...more });
  }
}

registerProcessor('dialogue-playout', PlayoutProcessor);
