import { DialogueError } from './errors.js';

// As many ended turns as the server remembers, too.
const MAX_REMEMBERED = 1024;
const CROSSED = ['duplicate_turn', 'unknown_turn'];

/**
 * @typedef {object} Turn
 * @property {string} turn
 * @property {boolean} cancelled  here, whatever the server knows
 * @property {boolean} written  its text came or comes in pieces
 * @property {boolean} writing  and is not complete
 * @property {boolean} refused  the server takes no more of it
 *
 * @typedef {{resolve: (answer: any) => void, reject: (error: DialogueError) => void, cancelled: boolean}} Asked
 */

/** The turns of a session that were asked for and are not over, and scripts that wait for their answer. */
export class Turns {
  /** @type {Map<string, Turn>} */
  #live = new Map();
  /** @type {Map<number, Turn>} */
  #ofIndex = new Map();
  /** Turns in pieces that are over. @type {Set<string>} */
  #past = new Set();
  /** @type {Map<string, Asked>} */
  #scripts = new Map();

  /**
   * Whether a script waits for its answer.
   * @param {string} script
   */
  asked(script) {
    return this.#scripts.has(script);
  }

  /**
   * The answer to a script that was sent.
   * @param {string} script
   * @returns {Promise<{script: string, turns: import('./types.js').AcceptedTurn[]}>}
   */
  askScript(script) {
    return new Promise((resolve, reject) => this.#scripts.set(script, { resolve, reject, cancelled: false }));
  }

  /**
   * A turn was asked for.
   * @param {string} turn
   * @param {{writing?: boolean, cancelled?: boolean}} [state]
   */
  add(turn, { writing = false, cancelled = false } = {}) {
    const entry = { turn, cancelled, written: writing, writing, refused: false };
    // An id that is taken stays with the turn that has it.
    if (!this.#live.has(turn)) this.#live.set(turn, entry);
    return entry;
  }

  /** @param {string} turn */
  isWriting(turn) {
    return this.#live.get(turn)?.writing ?? false;
  }

  /**
   * Whether the turn still takes text.
   * @param {string} turn
   */
  takesText(turn) {
    const entry = this.#live.get(turn);
    return entry !== undefined && entry.writing && !entry.refused;
  }

  /**
   * Whether the turn's text came in pieces, and it takes no more.
   * @param {string} turn
   */
  isOver(turn) {
    const entry = this.#live.get(turn);
    return this.#past.has(turn) || (entry !== undefined && entry.written && !this.takesText(turn));
  }

  /** @param {string} turn */
  stopWriting(turn) {
    const entry = this.#live.get(turn);
    if (entry !== undefined) entry.writing = false;
  }

  /** @param {string | null} turn  null: all */
  cancel(turn) {
    for (const entry of [...this.#live.values(), ...this.#ofIndex.values()]) {
      if (turn === null || turn === entry.turn) {
        entry.cancelled = true;
        entry.writing = false;
      }
    }
    if (turn === null) for (const script of this.#scripts.values()) script.cancelled = true;
  }

  /**
   * Whose audio it is. Throws DialogueError for a turn that has not started.
   * @param {number} turnIndex
   */
  ofFrame(turnIndex) {
    const entry = this.#ofIndex.get(turnIndex);
    if (entry === undefined) {
      const text = `the server sent audio of turn index ${turnIndex}, which is not spoken`;
      throw new DialogueError('protocol_error', text);
    }
    return { turn: entry.turn, cancelled: entry.cancelled };
  }

  /**
   * What the server says.
   * @param {any} message
   * @returns {boolean} whether it means nothing to anybody: the answer to text that crossed its turn's end
   */
  note(message) {
    if (message.type === 'script.accepted') {
      this.#accepted(message);
    } else if (message.type === 'turn.started') {
      this.#ofIndex.set(message.index, this.#live.get(message.turn) ?? this.add(message.turn));
    } else if (message.type === 'turn.completed') {
      this.#ofIndex.delete(message.index);
      this.#end(message.turn);
    } else if (message.type === 'error' && message.turn !== null) {
      return this.#refused(message);
    }
    return false;
  }

  /** Nothing more will come. @param {DialogueError} error */
  fail(error) {
    for (const script of this.#scripts.values()) script.reject(error);
    this.#scripts.clear();
  }

  /** @param {import('./types.js').ScriptAccepted} message */
  #accepted({ script, turns }) {
    const asked = this.#scripts.get(script);
    this.#scripts.delete(script);
    for (const { turn } of turns) this.add(turn, { cancelled: asked?.cancelled ?? false });
    asked?.resolve({ script, turns });
  }

  /** @param {import('./types.js').ErrorMessage} message */
  #refused(message) {
    const { code } = message;
    const turn = message.turn ?? '';
    const entry = this.#live.get(turn);
    const crossed = CROSSED.includes(code);
    if (crossed && this.isOver(turn)) return true;
    this.#scripts.get(turn)?.reject(DialogueError.of(message));
    this.#scripts.delete(turn);
    // A piece that is too long is left out, and the turn goes on.
    if (entry?.written && code !== 'text_too_long') entry.refused = true;
    return false;
  }

  /** @param {string} turn */
  #end(turn) {
    if (this.#live.get(turn)?.written) this.#past.add(turn);
    this.#live.delete(turn);
    if (this.#past.size > MAX_REMEMBERED) this.#past.delete([...this.#past][0]);
  }
}
