import { Emitter } from '../client/emitter.js';
import { connect } from '../client/index.js';
import { Player } from '../player/index.js';
import { codeOf } from './errors.js';

/**
 * @typedef {import('../client/index.js').Session} Session
 * @typedef {import('../client/index.js').Speaker} Speaker
 *
 * @typedef {'waiting' | 'making' | 'speaking' | 'heard' | 'stopped' | 'failed'} TurnState
 *   waiting: its audio is not begun; making: it is on its way; speaking: it is heard now; stopped: not heard to its end
 *
 * @typedef {object} Turn
 * @property {string} id
 * @property {Speaker} speaker
 * @property {string} voice the name of its voice
 * @property {string} text
 * @property {number | null} index its number in audio frames, from turn.started on
 * @property {TurnState} state
 * @property {boolean} complete whether no more audio of it comes
 * @property {number | null} ttfaMs what the server took to its first audio
 * @property {number} frames audio frames, once it is complete
 * @property {number} audioMs
 * @property {[string, number, number][]} words with times in ms from the turn's first frame
 * @property {number} heardFromMs the player's clock when it began to be heard
 * @property {string | null} remembered what the dialogue keeps of it, if not all
 *
 * @typedef {object} Wishes what a dialogue begins with
 * @property {string} url
 * @property {Partial<Record<Speaker, string>>} voices
 * @property {number | null} seed
 * @property {string} [token]
 *
 * @typedef {'open' | 'reconnecting' | 'ended'} Connection
 *
 * @typedef {{
 *   turn: Turn,
 *   connection: Connection,
 *   sound: {turn: Turn},
 *   finished: {turns: Turn[]},
 *   resumed: {lostMs: number},
 *   problem: unknown,
 *   ended: {reason: string},
 * }} TakeEvents turn: it is new or has changed; sound: its first frame is heard; finished: nothing is left to be heard
 */

const FORMAT = /** @type {const} */ ({ format: 'opus', sample_rate: 24000, frame_ms: 80 });
const FADE_MS = 20;

/** Whether this server's model gives word times; unknown until a dialogue was begun. */
let wordsWork = true;

/**
 * One dialogue: a session and the player of its audio.
 *
 * @extends {Emitter<TakeEvents>}
 */
export class Take extends Emitter {
  /** @type {Turn[]} */
  turns = [];
  /** @type {Connection} */
  connection = 'open';
  #nStops = 0;
  #finished = true;
  /** What was asked for and not yet accepted: how many stops there had been. @type {number[]} */
  #asked = [];

  /**
   * @param {Session} session
   * @param {Player} player
   */
  constructor(session, player) {
    super();
    this.session = session;
    this.player = player;
    this.#listenToSession();
    this.#listenToPlayer();
    player.follow(session);
  }

  /**
   * Connect and get the sound ready. Must be called in a user's gesture: browsers give no sound otherwise.
   *
   * @param {Wishes} wishes
   * @returns {Promise<Take>} rejects with DialogueError or PlayerError
   */
  static async begin(wishes) {
    const playing = Player.create({ sampleRate: FORMAT.sample_rate, frameMs: FORMAT.frame_ms, format: FORMAT.format });
    const [player, session] = await Promise.allSettled([playing, open(wishes)]);
    if (player.status === 'fulfilled' && session.status === 'fulfilled') return new Take(session.value, player.value);
    if (player.status === 'fulfilled') void player.value.close();
    if (session.status === 'fulfilled') void session.value.close();
    throw session.status === 'rejected' ? session.reason : /** @type {PromiseRejectedResult} */ (player).reason;
  }

  /** Whether something is still to be heard, or asked for. */
  get busy() {
    return this.#asked.length > 0 || this.turns.some(isPending);
  }

  /** @returns {Turn | undefined} the one that is heard now */
  get speaking() {
    return this.turns.find((turn) => turn.state === 'speaking');
  }

  /**
   * Have a script spoken after all that was asked for.
   *
   * @param {string} script
   */
  async say(script) {
    this.#asked.push(this.#nStops);
    this.#finished = false;
    try {
      await this.session.say(script);
    } catch (error) {
      this.#asked.shift();
      throw error;
    }
  }

  /** Silence at once; the server forgets what was not heard. */
  async stop() {
    this.#nStops += 1;
    const pending = this.turns.filter(isPending);
    for (const turn of pending) this.#change(turn, { state: 'stopped' });
    // Seen now: what is asked for may be accepted during the fade.
    const wanted = pending.length > 0 || this.#asked.length > 0;
    const playedMs = await this.player.stop({ fadeMs: FADE_MS });
    if (wanted) this.session.cancel({ turn: null, playedMs });
  }

  /** End the session and the sound. Twice does no harm. */
  async close() {
    this.connection = 'ended';
    await Promise.allSettled([this.session.close(), this.player.close()]);
  }

  #listenToSession() {
    const { session } = this;
    session.on('script.accepted', ({ turns }) => {
      const stopped = this.#asked.shift() !== this.#nStops;
      for (const { turn: id, speaker, text } of turns) {
        const voice = session.ready.voices[speaker] ?? speaker;
        const turn = newTurn({ id, speaker, voice, text, state: stopped ? 'stopped' : 'waiting' });
        this.turns.push(turn);
        this.emit('turn', turn);
      }
    });
    session.on('turn.started', ({ turn: id, index }) => {
      const turn = this.#find(id);
      if (turn) this.#change(turn, { index, state: turn.state === 'waiting' ? 'making' : turn.state });
    });
    session.on('turn.words', ({ turn: id, words }) => {
      const turn = this.#find(id);
      if (turn) this.#change(turn, { words: [...turn.words, ...words] });
    });
    session.on('turn.completed', (report) => this.#completed(report));
    session.on('turn.truncated', ({ turn: id, text }) => {
      const turn = this.#find(id);
      if (turn) this.#change(turn, { remembered: text, state: 'stopped' });
    });
    session.on('error', (error) => {
      const turn = error.turn === null ? undefined : this.#find(error.turn);
      if (turn) this.#change(turn, { state: 'failed', complete: true });
      this.emit('problem', Object.assign(new Error(error.message), { code: error.code }));
      this.#finishIfDone();
    });
    session.on('reconnecting', () => this.#connect('reconnecting'));
    session.on('resumed', (detail) => {
      this.#connect('open');
      this.emit('resumed', detail);
    });
    session.on('lost', (error) => this.#end(() => this.emit('problem', error)));
    session.on('closed', (detail) => this.#end(() => this.emit('ended', detail)));
  }

  #listenToPlayer() {
    this.player.on('turn', ({ turnIndex }) => {
      const turn = this.turns.find((one) => one.index === turnIndex);
      for (const before of this.turns) if (before !== turn && before.state === 'speaking') this.#heard(before);
      if (!turn || !isPending(turn)) return;
      this.#change(turn, { state: 'speaking', heardFromMs: this.player.playedMs });
      this.emit('sound', { turn });
    });
    this.player.on('turnend', ({ turnIndex }) => {
      const turn = this.turns.find((one) => one.index === turnIndex);
      if (turn && isPending(turn)) this.#heard(turn);
    });
    this.player.on('drained', () => this.#settle());
    this.player.on('error', (error) => this.emit('problem', error));
  }

  /** @param {import('../client/types.js').TurnCompleted} report */
  #completed({ turn: id, ttfa_ms: ttfaMs, audio_ms: audioMs, frames, reason }) {
    const turn = this.#find(id);
    if (!turn) return;
    this.#change(turn, { complete: true, ttfaMs, audioMs, frames });
    // Of what was never spoken nothing is forgotten, so no word of it comes.
    if (reason === 'cancelled' && frames === 0) this.#change(turn, { remembered: '' });
    if (!isPending(turn)) return;
    if (reason === 'error') this.#change(turn, { state: 'failed' });
    else if (reason === 'cancelled') this.#change(turn, { state: 'stopped' });
    else if (frames === 0) this.#heard(turn);
    this.#finishIfDone();
  }

  /** @param {Turn} turn */
  #heard(turn) {
    this.#change(turn, { state: 'heard' });
    this.#finishIfDone();
  }

  #finishIfDone() {
    if (this.busy || this.#finished) return;
    this.#finished = true;
    this.emit('finished', { turns: this.turns });
  }

  /** @param {Connection} connection */
  #connect(connection) {
    this.connection = connection;
    this.emit('connection', connection);
  }

  /** @param {() => void} tell */
  #end(tell) {
    this.#asked.length = 0;
    this.#connect('ended');
    // What has arrived of a turn is still heard.
    for (const { index, complete } of this.turns) if (index !== null && !complete) this.player.endTurn(index);
    if (this.player.bufferedMs <= 0) this.#settle();
    tell();
    this.#finishIfDone();
  }

  /** All that came was heard: end the turns of which no more comes. */
  #settle() {
    for (const turn of this.turns.filter(isPending)) {
      // The last frame of a turn need not be marked as such.
      if (turn.complete) this.#heard(turn);
      else if (this.connection === 'ended') {
        this.#change(turn, { state: turn.state === 'speaking' ? 'stopped' : 'failed' });
      }
    }
    this.#finishIfDone();
  }

  /** @param {string} id */
  #find(id) {
    return this.turns.find((turn) => turn.id === id);
  }

  /**
   * @param {Turn} turn
   * @param {Partial<Turn>} changes
   */
  #change(turn, changes) {
    Object.assign(turn, changes);
    this.emit('turn', turn);
  }
}

/** @param {Turn} turn */
function isPending({ state }) {
  return state === 'waiting' || state === 'making' || state === 'speaking';
}

/**
 * @param {Pick<Turn, 'id' | 'speaker' | 'voice' | 'text' | 'state'>} given
 * @returns {Turn}
 */
function newTurn(given) {
  const times = { ttfaMs: null, frames: 0, audioMs: 0, words: [], heardFromMs: 0 };
  return { ...given, ...times, index: null, complete: false, remembered: null };
}

/**
 * Open a session, with word times where the model gives them.
 *
 * @param {Wishes} wishes
 */
async function open({ url, voices, seed, token }) {
  const options = { voices, seed, token, audio: FORMAT };
  try {
    return await connect(url, { ...options, words: wordsWork });
  } catch (error) {
    if (!wordsWork || codeOf(error) !== 'not_supported') throw error;
    wordsWork = false;
    return connect(url, { ...options, words: false });
  }
}
