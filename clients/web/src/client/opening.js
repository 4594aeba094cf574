import { httpUrl, shown } from './address.js';
import { DialogueError } from './errors.js';

export const SUBPROTOCOL = 'dialogue.v1';
/** Any code but 1000 and 1001, which would end the session. */
export const CLOSE_LOST = 4000;
const UPGRADE_REQUIRED = 426;
const TOO_MANY_REQUESTS = 429;

/**
 * @typedef {object} Opening
 * @property {URL} address  with the token
 * @property {new (url: string, protocols: string[]) => import('./types.js').SocketLike} WebSocket
 * @property {number} timeoutMs
 * @property {AbortSignal} signal
 * @property {(data: string | ArrayBuffer) => void} onMessage
 * @property {(reason: string) => void} onClose  once, if the socket closes after it was opened
 */

/**
 * A WebSocket that speaks the dialogue protocol. Rejects with DialogueError.
 * @param {Opening} opening
 * @returns {Promise<import('./types.js').SocketLike>}
 */
export async function openSocket(opening) {
  const { address, timeoutMs } = opening;
  const began = performance.now();
  const outcome = await handshake(opening);
  if (typeof outcome !== 'string') return outcome;
  if (outcome === 'aborted') throw new DialogueError('closed', 'the session was closed here');
  if (outcome === 'timeout') {
    const text = `${shown(address)} did not answer within ${timeoutMs} ms`;
    throw new DialogueError('connection_failed', text, { final: false });
  }
  throw await explanation(opening, Math.max(1, timeoutMs - (performance.now() - began)));
}

/**
 * @param {Opening} opening
 * @returns {Promise<import('./types.js').SocketLike | 'refused' | 'timeout' | 'aborted'>}
 */
function handshake({ address, WebSocket, timeoutMs, signal, onMessage, onClose }) {
  /** @type {import('./types.js').SocketLike} */
  let socket;
  try {
    socket = new WebSocket(address.href, [SUBPROTOCOL]);
  } catch (error) {
    // Such as an unencrypted socket from an encrypted page.
    throw new DialogueError('invalid_address', `cannot connect to ${shown(address)}: ${String(error)}`);
  }
  socket.binaryType = 'arraybuffer';
  return new Promise((resolve) => {
    let open = false;
    let settled = false;
    const settle = (/** @type {any} */ outcome) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      if (outcome === 'timeout' || outcome === 'aborted') socket.close();
      resolve(outcome);
    };
    const abort = () => settle('aborted');
    const timer = setTimeout(() => settle('timeout'), timeoutMs);
    signal.addEventListener('abort', abort);
    socket.addEventListener('open', () => {
      open = true;
      settle(socket);
    });
    socket.addEventListener('message', ({ data }) => onMessage(data));
    // Once it is open, the close event says as much; before, Node's WebSocket has no such event.
    socket.addEventListener('error', () => settle('refused'));
    socket.addEventListener('close', ({ code, reason }) => {
      if (open) onClose(reason ? `${reason} (${code})` : `the connection broke (${code})`);
      else settle('refused');
    });
    if (signal.aborted) abort();
  });
}

/**
 * Why the handshake failed. Browsers don't tell, but the server answers the same request over HTTP.
 * @param {Opening} opening
 * @param {number} timeoutMs
 */
async function explanation({ address, signal }, timeoutMs) {
  const where = shown(address);
  try {
    const abort = AbortSignal.any ? AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(timeoutMs))]) : signal;
    const response = await fetch(httpUrl(address), { signal: abort, cache: 'no-store' });
    const { status } = response;
    const final = status < 500 && status !== TOO_MANY_REQUESTS && status !== UPGRADE_REQUIRED;
    const retryAfterMs = Number(response.headers.get('Retry-After') ?? NaN) * 1000;
    const more = { final, retryAfterMs: Number.isFinite(retryAfterMs) ? retryAfterMs : null };
    const body = await response.json().catch(() => null);
    if (status === UPGRADE_REQUIRED) {
      return new DialogueError('connection_failed', `${where} answers, but its WebSocket broke: try again`, more);
    }
    if (typeof body?.error?.code === 'string') {
      return new DialogueError(body.error.code, `${where} refused the connection: ${body.error.message}`, more);
    }
    const advice = 'is this the address of a dialogue streamer server?';
    return new DialogueError('connection_failed', `${where} answered HTTP ${status}: ${advice}`, more);
  } catch {
    const advice = 'is the server running (`streamer serve`)?';
    return new DialogueError('connection_failed', `cannot reach ${where}: ${advice}`, { final: false });
  }
}
