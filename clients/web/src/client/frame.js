import { DialogueError } from './errors.js';

const HEADER_BYTES = 16;
const VERSION = 1;
const LAST = 1;
/** @type {Record<number, import('./types.js').Format>} */
const KINDS = { 1: 'opus', 2: 'pcm_s16le', 3: 'mulaw' };

/**
 * An audio frame as it travels, taken apart; the payload is a view of `data`. Throws DialogueError for what is none.
 * @param {ArrayBuffer} data
 */
export function parseFrame(data) {
  const problem = (/** @type {string} */ what) => new DialogueError('protocol_error', `an audio frame ${what}`);
  if (data.byteLength <= HEADER_BYTES) throw problem(`of ${data.byteLength} bytes holds no audio`);
  const view = new DataView(data);
  if (view.getUint8(0) !== VERSION) throw problem(`has version ${view.getUint8(0)}, not ${VERSION}`);
  const kind = KINDS[view.getUint8(1)];
  if (kind === undefined) throw problem(`is of an unknown kind, ${view.getUint8(1)}`);
  return {
    kind,
    last: (view.getUint8(2) & LAST) !== 0,
    handle: view.getUint32(4, true),
    turnIndex: view.getUint32(8, true),
    frame: view.getUint32(12, true),
    payload: new Uint8Array(data, HEADER_BYTES),
  };
}
