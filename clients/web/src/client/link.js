import { backoffMs, pause } from './backoff.js';
import { asDialogueError, DialogueError } from './errors.js';
import { parseFrame } from './frame.js';
import { Heartbeat } from './heartbeat.js';
import { parseMessage } from './messages.js';
import { CLOSE_LOST, openSocket } from './opening.js';
import { Outbox } from './outbox.js';

const CONTEXT = 'main';
const CLOSE_DONE = 1000;
/** @type {Required<import('./types.js').ConnectionSettings>} */
const SETTINGS = {
  attemptTimeoutMs: 5000,
  heartbeatMs: 10000,
  closeTimeoutMs: 5000,
  backoffBaseMs: 250,
  backoffCapMs: 10000,
  maxUnsentBytes: 2 ** 20,
  random: Math.random,
};

/**
 * @typedef {object} Calls  What a link tells; each call may end it.
 * @property {(message: any) => void} message
 * @property {(frame: Omit<ReturnType<typeof parseFrame>, 'handle'>) => void} audio
 * @property {(id: string | null) => void} pong
 * @property {() => void} attached  a session is open on a new socket
 * @property {(event: import('./types.js').Reconnecting) => void} reconnecting
 * @property {(event: {lostMs: number}) => void} resumed
 * @property {(error: DialogueError | null, reason: string) => void} ended  once, and the last; no error: in order
 */

/** A session's way to its server, over as many sockets as it takes: everything arrives once and in order. */
export class Link {
  #address;
  #options;
  #calls;
  #settings;
  #outbox;
  #heartbeat;
  #abort = new AbortController();
  /** @type {import('./types.js').SocketLike | null} */
  #socket = null;
  /**
   * What waits for session.ready on the socket.
   * @type {{resolve: () => void, reject: (error: Error) => void} | null}
   */
  #opening = null;
  /** The first. @type {import('./types.js').SessionReady | null} */
  #ready = null;
  /** @type {string | null} */
  #token = null;
  /** @type {number | null} */
  #lastFrame = null;
  #messagesAfter = 0;
  #attempt = 0;
  /** @type {number | null} */
  #lostAt = null;
  #closing = false;
  #ended = false;

  /**
   * @param {URL} address
   * @param {import('./types.js').ConnectOptions} options
   * @param {Calls} calls
   */
  constructor(address, options, calls) {
    this.#address = address;
    this.#options = options;
    this.#calls = calls;
    this.#settings = { ...SETTINGS, ...options.settings };
    this.#outbox = new Outbox(this.#settings.maxUnsentBytes);
    const { heartbeatMs } = this.#settings;
    this.#heartbeat = new Heartbeat(heartbeatMs, {
      ask: () => this.say({ type: 'ping', id: 'heartbeat' }),
      dead: () => this.#lose(`nothing was heard for ${2 * heartbeatMs} ms`),
    });
  }

  /** The server's first answer. */
  get ready() {
    if (this.#ready === null) throw new DialogueError('session_not_started', 'the session is not open yet');
    return this.#ready;
  }

  /** Whether there is no connection at the moment. */
  get lost() {
    return this.#lostAt !== null;
  }

  /** Whether nothing more may be said. */
  get over() {
    return this.#closing || this.#ended;
  }

  /**
   * Open the session. Rejects with DialogueError.
   * @param {object} start  the session.start
   */
  async open(start) {
    try {
      await this.#connect(start);
    } catch (error) {
      this.end(asDialogueError(error), '');
      throw asDialogueError(error);
    }
  }

  /**
   * Send, now or when the connection is back. Throws DialogueError, taking nothing, for what is too large.
   * @param {object} message  one that counts
   */
  put(message) {
    if (this.#closing) throw new DialogueError('closed', 'the session is being closed');
    this.#outbox.put(message, this.ready.limits.max_message_bytes);
  }

  /**
   * Send if there is a connection.
   * @param {object} message  one that does not count, and is not sent again
   */
  say(message) {
    if (this.#opening === null) this.#socket?.send(JSON.stringify(message));
  }

  /** End the session; `ended` is called when that is done. */
  close() {
    if (this.#ended || this.#closing) return;
    if (this.#lostAt !== null) {
      // There is nobody to say good-bye to; the server's patience ends by itself.
      this.end(null, 'closed by the client');
      return;
    }
    this.#closing = true;
    this.#outbox.put({ type: 'session.close' }, Infinity);
    setTimeout(() => this.end(null, 'closed by the client'), this.#settings.closeTimeoutMs).unref?.();
  }

  /**
   * Nothing more will come or go.
   * @param {DialogueError | null} error  null: it ended in order
   * @param {string} reason
   */
  end(error, reason) {
    if (this.#ended) return;
    this.#ended = true;
    const opening = this.#opening;
    this.#outbox.detach();
    this.#abort.abort();
    this.#drop(error === null ? CLOSE_DONE : CLOSE_LOST);
    opening?.reject(error ?? new DialogueError('closed', `the session is closed (${reason})`));
    this.#calls.ended(error, reason);
  }

  /** @param {object} start */
  async #connect(start) {
    const address = await this.#addressWithToken();
    const { attemptTimeoutMs: timeoutMs } = this.#settings;
    /** @type {import('./types.js').SocketLike | null} */
    let mine = null;
    const current = () => mine !== null && mine === this.#socket;
    mine = await openSocket({
      address,
      WebSocket: this.#options.WebSocket ?? globalSocket(),
      timeoutMs,
      signal: this.#abort.signal,
      onMessage: (data) => current() && this.#receive(data),
      onClose: (reason) => current() && this.#lose(reason),
    });
    const socket = mine;
    this.#socket = socket;
    const silence = `the server opened no session within ${timeoutMs} ms`;
    const timer = setTimeout(() => current() && this.#lose(silence), timeoutMs);
    try {
      await new Promise((resolve, reject) => {
        this.#opening = { resolve: () => resolve(undefined), reject };
        socket.send(JSON.stringify(start));
      });
    } finally {
      clearTimeout(timer);
    }
  }

  async #addressWithToken() {
    const { token } = this.#options;
    const address = new URL(this.#address);
    try {
      const given = typeof token === 'function' ? await token() : token;
      if (given) address.searchParams.set('token', given.trim());
    } catch (error) {
      // The way to whoever gives tokens may be broken, too.
      throw new DialogueError('connection_failed', `no token could be had: ${String(error)}`, { final: false });
    }
    return address;
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#heartbeat.heard();
    try {
      if (typeof data === 'string') this.#takeMessage(parseMessage(data));
      else this.#takeAudio(data);
    } catch (error) {
      this.end(asDialogueError(error), '');
    }
  }

  /** @param {any} message */
  #takeMessage(message) {
    if (message.type === 'pong') {
      if (!this.#outbox.takeReceipt(message.id)) this.#calls.pong(message.id);
    } else if (this.#opening !== null) {
      if (message.type === 'session.ready') this.#takeReady(message);
      else if (message.type === 'error') this.#refuse(DialogueError.of(message));
    } else if (message.context === CONTEXT) {
      this.#messagesAfter += 1;
      // Only a session that is heard of makes a connection a success.
      this.#attempt = 0;
      this.#calls.message(message);
      if (message.type === 'session.closed') this.end(null, message.reason);
      else if (message.type === 'error' && message.fatal) this.end(DialogueError.of(message), '');
    }
  }

  /** @param {ArrayBuffer} data */
  #takeAudio(data) {
    const { handle, ...frame } = parseFrame(data);
    const expected = this.#lastFrame === null ? 0 : this.#lastFrame + 1;
    if (this.#opening !== null || handle !== this.ready.handle || frame.frame !== expected) {
      const found = `audio frame ${frame.frame} of handle ${handle}`;
      throw new DialogueError('protocol_error', `the server sent ${found}, where frame ${expected} comes next`);
    }
    this.#lastFrame = frame.frame;
    this.#messagesAfter = 0;
    this.#attempt = 0;
    this.#calls.audio(frame);
  }

  /** @param {import('./types.js').SessionReady} ready */
  #takeReady(ready) {
    const { socket, opening } = { socket: this.#socket, opening: this.#opening };
    if (this.#lostAt !== null && (!ready.resumed || ready.handle !== this.ready.handle)) {
      throw new DialogueError('protocol_error', 'session.ready: another session than the one to be resumed');
    }
    this.#outbox.attach((text) => socket?.send(text), ready.received);
    this.#opening = null;
    this.#token = ready.resume_token;
    this.#ready ??= ready;
    this.#heartbeat.start();
    if (this.#lostAt !== null) {
      const lostMs = Math.round(performance.now() - this.#lostAt);
      this.#lostAt = null;
      this.#calls.resumed({ lostMs });
    }
    this.#calls.attached();
    opening?.resolve();
  }

  /** No session on this socket. @param {DialogueError} error */
  #refuse(error) {
    const opening = this.#opening;
    this.#drop(CLOSE_LOST);
    opening?.reject(error);
  }

  /** The socket is gone, or as good as. @param {string} reason */
  #lose(reason) {
    if (this.#opening !== null) {
      this.#refuse(new DialogueError('connection_failed', reason, { final: false }));
      return;
    }
    this.#drop(CLOSE_LOST);
    this.#outbox.detach();
    const lost = new DialogueError('connection_lost', `the connection was lost: ${reason}`);
    if (this.#closing) {
      this.end(null, 'closed by the client');
    } else if (this.#options.resume === false || this.#token === null) {
      this.end(lost, '');
    } else {
      this.#lostAt = performance.now();
      this.#reconnect(reason).catch((error) => this.end(asDialogueError(error), ''));
    }
  }

  /** Another socket, for as long as the server keeps the session. @param {string} reason */
  async #reconnect(reason) {
    const { backoffBaseMs: baseMs, backoffCapMs: capMs, random } = this.#settings;
    const deadline = performance.now() + this.ready.limits.resume_grace_ms;
    let why = reason;
    let atLeastMs = 0;
    do {
      this.#attempt += 1;
      const leftMs = Math.max(0, deadline - performance.now());
      const backoff = backoffMs(this.#attempt, { baseMs, capMs, random });
      const delayMs = Math.round(Math.min(leftMs, Math.max(atLeastMs, backoff)));
      this.#calls.reconnecting({ attempt: this.#attempt, delayMs, reason: why });
      await pause(delayMs, this.#abort.signal);
      if (this.#ended) return;
      try {
        await this.#connect(this.#resumption());
        return;
      } catch (error) {
        const failed = asDialogueError(error);
        why = failed.message;
        atLeastMs = failed.retryAfterMs ?? 0;
        if (failed.final) throw new DialogueError(failed.code, `the connection was lost (${reason}): ${why}`);
      }
    } while (performance.now() < deadline);
    throw new DialogueError('connection_lost', `the connection was lost (${reason}) and did not come back: ${why}`);
  }

  #resumption() {
    const place = { last_frame: this.#lastFrame, messages_after: this.#messagesAfter };
    return { type: 'session.start', resume: this.#token, ...place };
  }

  /** Let go of the socket. @param {number} code  anything but CLOSE_DONE leaves the session waiting */
  #drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    this.#opening = null;
    this.#heartbeat.stop();
    socket?.close(code);
  }
}

function globalSocket() {
  const { WebSocket } = globalThis;
  if (WebSocket === undefined) {
    const advice = "pass the option WebSocket, such as that of the package 'ws'";
    throw new DialogueError('not_supported', `this runtime has no WebSocket: ${advice}`);
  }
  return WebSocket;
}
