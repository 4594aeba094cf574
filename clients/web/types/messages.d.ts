/**
 * The session.start of a new session.
 * @param {import('./types.js').ConnectOptions} options
 */
export function startMessage({ voices, audio, words, seed, sampling, language, mode }: import("./types.js").ConnectOptions): {
    type: string;
};
/**
 * A message of the server; its type and context are strings. Throws DialogueError for what is none.
 * @param {string} text
 */
export function parseMessage(text: string): any;
/** @param {number | null | undefined} seed */
export function checkSeed(seed: number | null | undefined): void;
/**
 * Milliseconds as the protocol takes them.
 * @param {number} ms
 */
export function wholeMs(ms: number): number;
/**
 * An id that the protocol takes; an error about another one could not name it.
 * @param {string} id
 * @param {number} [mostChars]
 */
export function checkId(id: string, mostChars?: number): void;
/**
 * Text that can be sent: half a character, as cutting leaves it behind, is none in JSON.
 * @param {string} text
 */
export function sendable(text: string): string;
/** The server adds numbers to the ids of scripts. */
export const MAX_SCRIPT_ID_CHARS: 56;
