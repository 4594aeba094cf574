import { OggOpusWriter, PRE_SKIP_SAMPLES_48K } from './ogg.js';
import { toInt16, wavHeader } from './wav.js';

const OPUS_RATE_HZ = 48000;
// A decoder that begins in the middle needs these to sound as if it had always been there.
const PRE_ROLL_PACKETS = 3;
const BLOCK_PACKETS = 256;

/**
 * @typedef {{payload: Uint8Array, samples: number, turnIndex: number}} Packet
 * @typedef {(packets: Packet[], done: boolean) => Promise<Float32Array<ArrayBuffer>>} Decode  The next packets of a
 *   stream to samples.
 */

/** Everything that was received, as it came: small enough to keep, and exact. */
export class Recording {
  /** @type {Packet[]} */
  #packets = [];
  #format;
  #sampleRate;

  /**
   * @param {'opus' | 'pcm_s16le'} format
   * @param {number} sampleRate  Hz
   */
  constructor(format, sampleRate) {
    this.#format = format;
    this.#sampleRate = sampleRate;
  }

  /** @param {Packet} packet */
  add(packet) {
    this.#packets.push(packet);
  }

  /**
   * One turn's samples, or null if nothing of it was received.
   * @param {number} turnIndex
   * @param {Decode} decode  of a fresh decoder
   */
  async turn(turnIndex, decode) {
    const begin = this.#packets.findIndex((packet) => packet.turnIndex === turnIndex);
    if (begin < 0) return null;
    let end = begin;
    while (this.#packets[end]?.turnIndex === turnIndex) end += 1;
    const preRoll = this.#packets.slice(Math.max(0, begin - PRE_ROLL_PACKETS), begin);
    const pcm = await decode([...preRoll, ...this.#packets.slice(begin, end)], true);
    return pcm.subarray(preRoll.reduce((sum, { samples }) => sum + samples, 0));
  }

  /**
   * @param {Decode} decode  of a fresh decoder
   * @returns {Promise<Blob>} WAV, 16 bit mono
   */
  async toWav(decode) {
    const packets = [...this.#packets];
    const skip = this.#format === 'opus' ? Math.round((PRE_SKIP_SAMPLES_48K * this.#sampleRate) / OPUS_RATE_HZ) : 0;
    const parts = [];
    let samples = 0;
    for (let at = 0; at < packets.length; at += BLOCK_PACKETS) {
      const block = packets.slice(at, at + BLOCK_PACKETS);
      const pcm = await decode(block, at + BLOCK_PACKETS >= packets.length);
      const kept = at === 0 ? pcm.subarray(skip) : pcm;
      parts.push(toInt16(kept));
      samples += kept.length;
    }
    return new Blob([wavHeader(samples, this.#sampleRate), ...parts], { type: 'audio/wav' });
  }

  /** @returns {Blob} Ogg Opus, the packets as they came */
  toOpus() {
    const writer = new OggOpusWriter(this.#sampleRate);
    for (const { payload, samples } of this.#packets) {
      writer.packet(payload, Math.round((samples * OPUS_RATE_HZ) / this.#sampleRate));
    }
    return new Blob(writer.close(), { type: 'audio/ogg; codecs=opus' });
  }
}
