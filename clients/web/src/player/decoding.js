import { OpusDecoder } from 'opus-decoder';

/**
 * Packets to samples. One decoder takes all packets of a session in order, as one encoder made them.
 * @typedef {{decode: (payload: Uint8Array, samples: number) => Float32Array, free: () => void}} Decoder
 */

/**
 * @param {'opus' | 'pcm_s16le'} format
 * @param {number} sampleRate  Hz; for Opus 8000, 12000, 16000, 24000 or 48000
 * @returns {Promise<Decoder>}
 */
export async function createDecoder(format, sampleRate) {
  if (format === 'pcm_s16le') return { decode: fromPcm, free: () => {} };
  const rate = /** @type {8000 | 12000 | 16000 | 24000 | 48000} */ (sampleRate);
  const opus = new OpusDecoder({
    sampleRate: rate,
    channels: 1,
    streamCount: 1,
    coupledStreamCount: 0,
    channelMappingTable: [0],
    preSkip: 0,
  });
  await opus.ready;
  return {
    decode: (payload, samples) => exactly(samples, opus.decodeFrame(payload).channelData[0]),
    free: () => opus.free(),
  };
}

/**
 * So many samples whatever the decoder made of a packet: a broken one must not move the clock.
 * @param {number} samples
 * @param {Float32Array | undefined} pcm
 */
function exactly(samples, pcm) {
  if (pcm !== undefined && pcm.length === samples) return pcm;
  const out = new Float32Array(samples);
  if (pcm !== undefined) out.set(pcm.subarray(0, samples));
  return out;
}

/**
 * @param {Uint8Array} payload
 * @param {number} samples
 */
function fromPcm(payload, samples) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Float32Array.from({ length: samples }, (_, i) => view.getInt16(2 * i, true) / 32768);
}
