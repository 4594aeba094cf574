import { DialogueError } from './errors.js';

/**
 * The session.start of a new session.
 * @param {import('./types.js').ConnectOptions} options
 */
export function startMessage({ voices, audio, words, seed, sampling, language, mode }) {
  checkSeed(seed);
  const fields = { voices, audio, words, seed, sampling, language, mode };
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return { type: 'session.start', ...Object.fromEntries(given) };
}

/**
 * A message of the server; its type and context are strings. Throws DialogueError for what is none.
 * @param {string} text
 */
export function parseMessage(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    message = null;
  }
  if (typeof message?.type !== 'string' || typeof message.context !== 'string') {
    throw new DialogueError('protocol_error', `the server sent what is no message: ${text.slice(0, 100)}`);
  }
  return message;
}

/** @param {number | null | undefined} seed */
export function checkSeed(seed) {
  if (seed === undefined || seed === null) return;
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new DialogueError('invalid_message', `seed is a whole number from 0 to 2^53-1, not ${seed}`);
  }
}

/**
 * Milliseconds as the protocol takes them.
 * @param {number} ms
 */
export function wholeMs(ms) {
  if (!Number.isFinite(ms) || ms < 0) {
    throw new DialogueError('invalid_message', `played time is a number of milliseconds from 0 on, not ${ms}`);
  }
  return Math.floor(ms);
}

const MAX_ID_CHARS = 64;
/** The server adds numbers to the ids of scripts. */
export const MAX_SCRIPT_ID_CHARS = 56;

/**
 * An id that the protocol takes; an error about another one could not name it.
 * @param {string} id
 * @param {number} [mostChars]
 */
export function checkId(id, mostChars = MAX_ID_CHARS) {
  if (typeof id !== 'string' || id.length > mostChars || !/^[A-Za-z0-9_.:-]+$/.test(id)) {
    const rule = `an id has 1 to ${mostChars} characters of A-Z a-z 0-9 _ . : -`;
    throw new DialogueError('invalid_message', `${rule}, which ${JSON.stringify(id)} does not`);
  }
}

/**
 * Text that can be sent: half a character, as cutting leaves it behind, is none in JSON.
 * @param {string} text
 */
export function sendable(text) {
  if (typeof text !== 'string') throw new DialogueError('invalid_message', `text is a string, not ${typeof text}`);
  return text.replace(/\p{Surrogate}/gu, '\uFFFD');
}
