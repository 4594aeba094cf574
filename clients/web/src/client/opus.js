import { DialogueError } from './errors.js';

const SILK_SAMPLES = [480, 960, 1920, 2880];
const HYBRID_SAMPLES = [480, 960];
const CELT_SAMPLES = [120, 240, 480, 960];
const MAX_SAMPLES = 5760;

/**
 * Length of an Opus packet in samples at 48 kHz, from its first bytes (RFC 6716, section 3.1). Throws DialogueError
 * for an empty packet, or one whose frame count is missing, 0 or over 120 ms.
 * @param {Uint8Array} packet
 */
export function packetSamples48k(packet) {
  if (packet.length === 0) throw new DialogueError('protocol_error', 'an Opus packet has at least one byte');
  const config = packet[0] >> 3;
  let samples = CELT_SAMPLES[config % 4];
  if (config < 12) samples = SILK_SAMPLES[config % 4];
  else if (config < 16) samples = HYBRID_SAMPLES[config % 2];
  const frames = [1, 2, 2, packet.length > 1 ? packet[1] & 63 : 0][packet[0] & 3];
  if (frames === 0 || frames * samples > MAX_SAMPLES) {
    throw new DialogueError('protocol_error', `an Opus packet cannot hold ${frames} frames of ${samples} samples`);
  }
  return frames * samples;
}

/**
 * Length of an audio frame in samples at `sampleRate`.
 * @param {{kind: import('./types.js').Format, payload: Uint8Array}} frame
 * @param {number} sampleRate  Hz
 */
export function frameSamples({ kind, payload }, sampleRate) {
  if (kind === 'opus') return Math.round((packetSamples48k(payload) * sampleRate) / 48000);
  return kind === 'mulaw' ? payload.length : payload.length >> 1;
}
