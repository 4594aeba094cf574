const HEADER_BYTES = 44;

/**
 * The header of a WAV file of 16 bit mono samples.
 * @param {number} samples
 * @param {number} sampleRate  Hz
 */
export function wavHeader(samples, sampleRate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const write = (/** @type {number} */ at, /** @type {string} */ text) =>
    [...text].forEach((character, i) => view.setUint8(at + i, character.charCodeAt(0)));
  write(0, 'RIFF');
  view.setUint32(4, HEADER_BYTES - 8 + 2 * samples, true);
  write(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, 'data');
  view.setUint32(40, 2 * samples, true);
  return view.buffer;
}

/**
 * Samples of -1 to 1 as little-endian 16 bit; what is beyond is clipped.
 * @param {Float32Array} pcm
 */
export function toInt16(pcm) {
  const view = new DataView(new ArrayBuffer(2 * pcm.length));
  pcm.forEach((value, i) => view.setInt16(2 * i, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true));
  return view.buffer;
}
