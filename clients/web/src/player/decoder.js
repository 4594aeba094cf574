import { PlayerError } from './errors.js';

/** The page's end of the decoder's worker, whose samples go straight to the audio thread. */
export class DecoderWorker {
  /** What the audio thread is to listen to. */
  source;
  /** Told when the decoder has failed for good. @type {(message: string) => void} */
  onfailure = () => {};
  #worker;
  #numbers = 0;
  /** @type {Map<number, {resolve: (pcm: Float32Array<ArrayBuffer>) => void, reject: (error: PlayerError) => void}>} */
  #waiting = new Map();

  /**
   * Rejects with PlayerError.
   * @param {'opus' | 'pcm_s16le'} format
   * @param {number} sampleRate  Hz
   * @returns {Promise<DecoderWorker>}
   */
  static create(format, sampleRate) {
    return new Promise((resolve, reject) => {
      const worker = new DecoderWorker(format, sampleRate, () => resolve(worker));
      worker.onfailure = (message) => {
        worker.close();
        reject(new PlayerError('decoder_failed', `the audio decoder does not start: ${message}`));
      };
    });
  }

  /**
   * @param {'opus' | 'pcm_s16le'} format
   * @param {number} sampleRate
   * @param {() => void} ready
   */
  constructor(format, sampleRate, ready) {
    const { port1: sink, port2: source } = new MessageChannel();
    this.source = source;
    this.#worker = new Worker(new URL('./decoder.worker.js', import.meta.url), { type: 'module' });
    this.#worker.onerror = (event) => this.onfailure(event.message ?? 'its script could not be loaded');
    this.#worker.onmessage = ({ data }) => {
      if (data.type === 'ready') ready();
      else this.#settle(data);
    };
    this.#worker.postMessage({ type: 'setup', format, sampleRate, sink }, [sink]);
  }

  /**
   * The session's next frame; `silent`: it is not to be heard.
   * @param {{payload: Uint8Array, samples: number, epoch: number, turnIndex: number, last: boolean,
   *   silent: boolean}} frame
   */
  frame(frame) {
    this.#worker.postMessage({ type: 'frame', ...frame });
  }

  /**
   * No more frames of a turn will come.
   * @param {{epoch: number, turnIndex: number}} turn
   */
  end(turn) {
    this.#worker.postMessage({ type: 'end', ...turn });
  }

  /**
   * A decoder of its own: each call takes the next packets of one stream.
   * @returns {(packets: {payload: Uint8Array, samples: number}[], done: boolean) => Promise<Float32Array<ArrayBuffer>>}
   */
  stream() {
    this.#numbers += 1;
    const id = this.#numbers;
    return (packets, done) =>
      new Promise((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject });
        this.#worker.postMessage({ type: 'decode', id, packets, done });
      });
  }

  close() {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new PlayerError('closed', 'the player was closed'));
    this.#waiting.clear();
  }

  /** @param {any} answer */
  #settle({ type, id, pcm, message }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (type === 'decoded') waiting?.resolve(pcm);
    else if (waiting !== undefined) waiting.reject(new PlayerError('decoder_failed', message));
    else this.onfailure(message);
  }
}
