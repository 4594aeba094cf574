/** The servers that tests/clients/test_web_core.py has started, and what breaks the way to them. */
import { connect } from '../src/client/index.js';

const { SERVER, PROXY, CONTROL, LOCKED, TOKEN, IMPATIENT } = process.env;

/** Addresses: the server, the same behind a wire that breaks, one that asks for tokens, one that waits for nobody. */
export const servers = { plain: SERVER ?? '', proxy: PROXY ?? '', locked: LOCKED ?? '', impatient: IMPATIENT ?? '' };
export const token = TOKEN ?? '';
export const skip = SERVER === undefined && 'needs the servers that the Python tests start';

export const SENTENCE = 'The weather is so nice today, let us go for a walk.';
export const SCRIPT = `[S1] ${SENTENCE} [S2] ${SENTENCE}`;
/** @type {import('../src/client/index.js').ConnectOptions} */
export const GREEDY = {
  audio: { format: 'pcm_s16le' },
  sampling: { audio_temperature: 0, text_temperature: 0 },
  seed: 1,
};
export const QUICK = { backoffBaseMs: 1, backoffCapMs: 10 };

/**
 * Break the wire: `cut`, `refuse?n=2`, `drop`, `mend`, `cut_after?down=100`.
 * @param {string} what
 */
export async function wire(what) {
  const response = await fetch(`${CONTROL}/${what}`, { method: 'POST' });
  if (!response.ok) throw new Error(await response.text());
}

/** @typedef {import('../src/client/index.js').Session} Session */
/** @typedef {import('../src/client/index.js').EventMap} EventMap */

/**
 * The next event of a type that fits.
 * @template {keyof EventMap} Type
 * @param {Session} session
 * @param {Type} type
 * @param {(event: EventMap[Type]) => boolean} [fits]
 * @returns {Promise<EventMap[Type]>}
 */
export function next(session, type, fits = () => true) {
  return new Promise((resolve, reject) => {
    const off = session.on(type, (event) => {
      if (!fits(event)) return;
      off();
      offLost();
      resolve(event);
    });
    const offLost = session.on('lost', (error) => type !== 'lost' && reject(error));
  });
}

/**
 * What the server has said since this was last asked: messages, and frames in the form that `heard` has.
 * @returns {Promise<any[]>}
 */
export async function said() {
  return (await fetch(`${CONTROL}/said`)).json();
}

/** @type {(keyof EventMap)[]} */
const SAID = [
  'script.accepted',
  'queued',
  'turn.started',
  'turn.completed',
  'turn.words',
  'turn.truncated',
  'session.idle',
  'session.closed',
  'error',
];

/**
 * Everything that a session hears of its server, in order.
 * @param {Session} session
 */
export function heard(session) {
  /** @type {any[]} */
  const log = [];
  for (const type of SAID) session.on(type, (event) => log.push(event));
  session.on('audio', ({ turnIndex, frame, last, payload }) => {
    log.push({ turnIndex, frame, last, payload: Buffer.from(payload).toString('base64') });
  });
  return log;
}

/**
 * A session that is closed at the end of the test.
 * @param {import('node:test').TestContext} context
 * @param {string} url
 * @param {import('../src/client/index.js').ConnectOptions} [options]
 */
export async function opened(context, url, options = {}) {
  const session = await connect(url, { ...GREEDY, settings: QUICK, ...options });
  context.after(() => session.close());
  return session;
}
