import { DialogueError } from './errors.js';

const PATH = '/v1/dialogue';
/** @type {Record<string, string>} */
const SCHEMES = { 'ws:': 'ws:', 'http:': 'ws:', 'wss:': 'wss:', 'https:': 'wss:' };

/**
 * The full address of the dialogue socket: http(s) becomes ws(s), a path alone is one of the page's own server, a bare
 * host gets ws://, an empty path becomes /v1/dialogue. Throws DialogueError for what is no address.
 * @param {string | URL} url
 * @returns {URL}
 */
export function dialogueUrl(url) {
  const text = String(url);
  const page = globalThis.location?.href;
  try {
    const own = page !== undefined && (text === '' || text.startsWith('/'));
    const full = own ? new URL(text, page) : new URL(text.includes('://') ? text : `ws://${text}`);
    if (!(full.protocol in SCHEMES) || full.hostname === '' || full.username !== '') {
      throw new TypeError('not an address of a server');
    }
    // The setter refuses to change http into ws, so the text is changed.
    const address = new URL(SCHEMES[full.protocol] + full.href.slice(full.protocol.length));
    if (address.pathname === '/') address.pathname = PATH;
    address.hash = '';
    return address;
  } catch (error) {
    const like = `one looks like ws://127.0.0.1:8000${PATH}`;
    throw new DialogueError('invalid_address', `'${text}' is not the address of a server; ${like}`);
  }
}

/**
 * The same address for fetch, which learns why a WebSocket was refused.
 * @param {URL} address
 */
export function httpUrl(address) {
  return `http${address.href.slice('ws'.length)}`;
}

/**
 * The address as it may be shown: without the token.
 * @param {URL} address
 */
export function shown(address) {
  return `${address.protocol}//${address.host}${address.pathname}`;
}
