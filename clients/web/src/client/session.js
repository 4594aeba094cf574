import { dialogueUrl } from './address.js';
import { Emitter } from './emitter.js';
import { DialogueError } from './errors.js';
import { Link } from './link.js';
import { checkId, checkSeed, MAX_SCRIPT_ID_CHARS, sendable, startMessage, wholeMs } from './messages.js';
import { Turns } from './turns.js';

/**
 * Open a session. Rejects with DialogueError, which says what to do.
 * @param {string | URL} url  such as `ws://127.0.0.1:8000`; `/` is the server that a page comes from
 * @param {import('./types.js').ConnectOptions} [options]
 * @returns {Promise<Session>}
 */
export async function connect(url, options = {}) {
  return await Session.open(url, options);
}

/**
 * One dialogue, over as many connections as it takes; made by `connect`. What is said while there is no connection
 * waits for the next one. Methods that ask for speech throw DialogueError once the session has ended.
 */
export class Session {
  /** @type {Emitter<import('./types.js').EventMap>} */
  #emitter = new Emitter();
  #turns = new Turns();
  #link;
  /** @type {DialogueError | null} */
  #failure = null;
  #numbers = 0;
  /** @type {Map<string, {resolve: (ms: number) => void, reject: (error: DialogueError) => void, began: number}>} */
  #pings = new Map();
  /** @type {(() => void)[]} */
  #over = [];

  /**
   * @param {string | URL} url
   * @param {import('./types.js').ConnectOptions} options
   */
  constructor(url, options) {
    this.#link = new Link(dialogueUrl(url), options, {
      message: (message) => this.#turns.note(message) || this.#emitter.emit(message.type, message),
      audio: (frame) => this.#emitter.emit('audio', { ...frame, ...this.#turns.ofFrame(frame.turnIndex) }),
      pong: (id) => this.#takePong(id),
      attached: () => this.#pings.forEach((_, id) => this.#link.say({ type: 'ping', id })),
      reconnecting: (event) => this.#emitter.emit('reconnecting', event),
      resumed: (event) => this.#emitter.emit('resumed', event),
      ended: (error, reason) => this.#end(error, reason),
    });
  }

  /**
   * What `connect` does.
   * @param {string | URL} url
   * @param {import('./types.js').ConnectOptions} options
   */
  static async open(url, options) {
    const start = startMessage(options);
    const session = new Session(url, options);
    await session.#link.open(start);
    return session;
  }

  /** The server's first answer: limits, voices, model, audio format. */
  get ready() {
    return this.#link.ready;
  }

  /** `open`, `reconnecting` or `ended`. */
  get state() {
    if (this.#failure !== null) return 'ended';
    return this.#link.lost ? 'reconnecting' : 'open';
  }

  /**
   * @template {keyof import('./types.js').EventMap} Type
   * @param {Type} type  of a server's message, or one of the client's own
   * @param {(event: import('./types.js').EventMap[Type]) => void} listener
   * @returns {() => void} what ends the subscription
   */
  on(type, listener) {
    return this.#emitter.on(type, listener);
  }

  /**
   * Speak a script with tags `[S1]` to `[S5]`. Resolves with its turns when the server has split it.
   * @param {string} text
   * @param {{script?: string, seed?: number | null, sampling?: import('./types.js').Sampling | null}} [options]
   * @returns {Promise<{script: string, turns: import('./types.js').AcceptedTurn[]}>}
   */
  async say(text, { script = this.#name('script'), seed = null, sampling = null } = {}) {
    checkId(script, MAX_SCRIPT_ID_CHARS);
    checkSeed(seed);
    if (this.#turns.asked(script)) throw new DialogueError('duplicate_turn', `the script id ${script} is taken`);
    this.#put({ type: 'script.append', script, text: sendable(text), seed, sampling });
    return this.#turns.askScript(script);
  }

  /**
   * Speak one whole turn.
   * @param {{speaker: import('./types.js').Speaker, text: string, turn?: string, seed?: number | null,
   *   sampling?: import('./types.js').Sampling | null}} options
   * @returns {string} the turn's id; if the server refuses it, an `error` names it
   */
  createTurn({ speaker, text, turn = this.#name('turn'), seed = null, sampling = null }) {
    checkId(turn);
    checkSeed(seed);
    this.#put({ type: 'turn.create', turn, speaker, text: sendable(text), seed, sampling });
    this.#turns.add(turn);
    return turn;
  }

  /**
   * The next piece of a turn's text; the first opens the turn and names the speaker. Comes to nothing when the text is
   * empty, or the turn has ended meanwhile, as when it was cancelled.
   * @param {string} turn
   * @param {string} text
   * @param {{speaker?: import('./types.js').Speaker, seed?: number | null,
   *   sampling?: import('./types.js').Sampling | null}} [options]
   * @returns {boolean} whether it was sent
   */
  append(turn, text, { speaker, seed = null, sampling = null } = {}) {
    checkId(turn);
    checkSeed(seed);
    if (sendable(text) === '') return false;
    if (this.#turns.takesText(turn)) {
      // Without its speaker: should the turn have been refused meanwhile, that would open it anew.
      this.#put({ type: 'turn.append', turn, text: sendable(text) });
      return true;
    }
    if (this.#turns.isOver(turn)) return false;
    if (speaker === undefined) {
      throw new DialogueError('invalid_message', `append: the first piece of turn ${turn} names its speaker`, { turn });
    }
    this.#put({ type: 'turn.append', turn, speaker, text: sendable(text), seed, sampling });
    this.#turns.add(turn, { writing: true });
    return true;
  }

  /**
   * The text of a turn that came in pieces is complete. Twice does no harm.
   * @param {string} turn
   * @returns {boolean} whether there was something to commit
   */
  commit(turn) {
    if (!this.#turns.isWriting(turn)) return false;
    this.#put({ type: 'turn.commit', turn });
    this.#turns.stopWriting(turn);
    return true;
  }

  /**
   * Stop a turn, or all of them, at once. Audio frames of them that are still on their way come marked `cancelled`.
   * Comes to nothing once the session has ended.
   * @param {{turn?: string | null, playedMs?: number | null}} [what]  `playedMs`: what was heard of the session's
   *   audio; the dialogue remembers only that. Without it, what was sent counts as heard.
   */
  cancel({ turn = null, playedMs = null } = {}) {
    if (this.#link.over) return;
    this.#put({ type: 'turn.cancel', turn, played_ms: playedMs === null ? null : wholeMs(playedMs) });
    this.#turns.cancel(turn);
  }

  /**
   * How much of the session's audio was heard so far: to be told about every second, and when playing stops or goes on.
   * @param {number} ms
   */
  played(ms) {
    if (!this.#link.over) this.#put({ type: 'playback', played_ms: wholeMs(ms) });
  }

  /**
   * Round trip in milliseconds; while the connection is lost, it waits for the next one.
   * @returns {Promise<number>}
   */
  ping() {
    const id = this.#name('ping');
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) return reject(this.#failure);
      this.#pings.set(id, { resolve, reject, began: performance.now() });
      this.#link.say({ type: 'ping', id });
    });
  }

  /**
   * End the session, and resolve when that is done. What is not finished is cancelled. Twice does no harm.
   * @returns {Promise<void>}
   */
  async close() {
    if (this.#failure !== null) return;
    /** @type {Promise<void>} */
    const over = new Promise((resolve) => this.#over.push(resolve));
    this.#link.close();
    await over;
  }

  /** @param {string | null} id */
  #takePong(id) {
    const ping = this.#pings.get(id ?? '');
    this.#pings.delete(id ?? '');
    ping?.resolve(performance.now() - ping.began);
  }

  /**
   * @param {DialogueError | null} error
   * @param {string} reason
   */
  #end(error, reason) {
    const failure = error ?? new DialogueError('closed', `the session is closed (${reason})`);
    this.#failure = failure;
    this.#turns.fail(failure);
    this.#pings.forEach((ping) => ping.reject(failure));
    this.#pings.clear();
    this.#over.forEach((resolve) => resolve());
    if (error === null) this.#emitter.emit('closed', { reason });
    else this.#emitter.emit('lost', error);
  }

  /** @param {object} message */
  #put(message) {
    if (this.#failure !== null) throw this.#failure;
    this.#link.put(message);
  }

  /** @param {string} kind */
  #name(kind) {
    this.#numbers += 1;
    return `${kind}-${this.#numbers}`;
  }
}
