import { PageError } from './errors.js';

const WAV_HZ = 24000;
/** What the server reads; everything else is turned into WAV here. */
const ACCEPTED = /\.(wav|flac|ogg|oga|opus|mp3)$/i;

/** The microphone, for one recording at a time. */
export class Recorder {
  /** @type {MediaRecorder | null} */
  #recorder = null;

  get running() {
    return this.#recorder !== null;
  }

  /**
   * Record until `stop`, or for so long.
   *
   * @param {number} maxMs
   * @param {() => void} onStart called when the microphone was allowed and is on
   * @returns {Promise<Blob>} a WAV file, once the recording has ended; rejects with PageError
   */
  async record(maxMs, onStart) {
    const stream = await microphone();
    const recorder = new MediaRecorder(stream);
    this.#recorder = recorder;
    /** @type {Blob[]} */
    const pieces = [];
    recorder.addEventListener('dataavailable', ({ data }) => pieces.push(data));
    const ended = new Promise((resolve) => recorder.addEventListener('stop', resolve, { once: true }));
    recorder.start();
    onStart();
    const timer = window.setTimeout(() => this.stop(), maxMs);
    await ended;
    window.clearTimeout(timer);
    this.#recorder = null;
    for (const track of stream.getTracks()) track.stop();
    return toWav(new Blob(pieces, { type: recorder.mimeType }), maxMs);
  }

  /** End the recording, if one runs. */
  stop() {
    if (this.#recorder?.state === 'recording') this.#recorder.stop();
  }
}

/**
 * A file as the server can read it.
 *
 * @param {File} file
 * @returns {Promise<Blob>} the file itself, or a WAV file; rejects with PageError
 */
export async function readable(file) {
  return ACCEPTED.test(file.name) ? file : toWav(file, Infinity);
}

/** @returns {Promise<MediaStream>} */
async function microphone() {
  if (!navigator.mediaDevices) {
    throw new PageError('microphone', 'browsers give the microphone to pages of https or localhost only');
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const missing = error instanceof DOMException && error.name === 'NotFoundError';
    throw new PageError('microphone', missing ? 'there is no microphone' : 'the microphone was not allowed');
  }
}

/**
 * @param {Blob} blob any audio that the browser plays
 * @param {number} maxMs what is kept of it
 * @returns {Promise<Blob>} mono, 16 bit
 */
async function toWav(blob, maxMs) {
  const context = new OfflineAudioContext(1, 1, WAV_HZ);
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new PageError('bad_recording', 'this file is no audio that the browser can read');
  }
  const nSamples = Math.min(audio.length, Math.floor((maxMs / 1000) * WAV_HZ));
  const channels = Array.from({ length: audio.numberOfChannels }, (_, channel) => audio.getChannelData(channel));
  const file = new DataView(new ArrayBuffer(44 + 2 * nSamples));
  writeHeader(file, nSamples);
  for (let place = 0; place < nSamples; place += 1) {
    const sum = channels.reduce((total, channel) => total + channel[place], 0);
    const sample = Math.max(-1, Math.min(1, sum / channels.length));
    file.setInt16(44 + 2 * place, Math.round(sample * 32767), true);
  }
  return new Blob([file.buffer], { type: 'audio/wav' });
}

/**
 * @param {DataView} file
 * @param {number} nSamples
 */
function writeHeader(file, nSamples) {
  const text = (/** @type {number} */ at, /** @type {string} */ word) => {
    for (let place = 0; place < word.length; place += 1) file.setUint8(at + place, word.charCodeAt(place));
  };
  text(0, 'RIFF');
  file.setUint32(4, 36 + 2 * nSamples, true);
  text(8, 'WAVEfmt ');
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true);
  file.setUint16(22, 1, true);
  file.setUint32(24, WAV_HZ, true);
  file.setUint32(28, 2 * WAV_HZ, true);
  file.setUint16(32, 2, true);
  file.setUint16(34, 16, true);
  text(36, 'data');
  file.setUint32(40, 2 * nSamples, true);
}
