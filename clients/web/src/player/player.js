import { PlaybackClock } from '../client/clock.js';
import { Emitter } from '../client/emitter.js';
import { frameSamples } from '../client/opus.js';
import { AdaptiveBuffer } from './adaptive.js';
import { DecoderWorker } from './decoder.js';
import { PlayerError } from './errors.js';
import { Recording } from './recording.js';
import { Replay } from './replay.js';
import workletUrl from './worklet.js?worker&url';

const FFT_SAMPLES = 2048;
// Longer than any fade: an audio device that is gone answers nothing.
const STOP_PATIENCE_MS = 500;
const REPORT_MS = 1000;
const MAX_LATENCY_S = 0.5;

/**
 * @typedef {object} PlayerOptions
 * @property {number} [sampleRate]  of the session's audio, Hz; 24000 by default
 * @property {number} [frameMs]  80 by default
 * @property {'opus' | 'pcm_s16le'} [format]
 * @property {number} [targetMs]  the least to have before sound begins; 120 by default
 *
 * @typedef {{
 *   turn: {turnIndex: number},
 *   turnend: {turnIndex: number},
 *   underrun: {turnIndex: number, gapMs: number},
 *   drained: {},
 *   playing: {playing: boolean},
 *   progress: {playedMs: number, bufferedMs: number},
 *   error: PlayerError,
 * }} PlayerEvents  A turn's first sample is heard; its last was; sound goes on after a gap inside a turn; all that came
 *   was heard, or was stopped; sound begins or ends; some 20 ms more were played; the decoder failed.
 */

/** Plays one session: audio frames in, sound out, and word of what is heard. Made by `Player.create`. */
export class Player {
  #context;
  #node;
  #gain;
  #analyser;
  #worker;
  #clock;
  #buffer;
  #recording;
  #replay;
  /** @type {Emitter<PlayerEvents>} */
  #emitter = new Emitter();
  #sampleRate;
  #format;
  #report = { rendered: 0, playing: false, time: 0 };
  #underruns = 0;
  #epoch = 0;
  #newestTurn = -1;
  /** Turns up to this one were stopped. */
  #silencedTurn = -1;
  /** @type {Map<number, (rendered: number) => void>} */
  #stops = new Map();
  #numbers = 0;
  /** @type {import('../client/clock.js').ClockEvent[]} */
  #news = [];
  #closed = false;

  /**
   * Ready to play. To be called while a user's gesture is handled, or browsers keep silent until `resume`. Rejects
   * with PlayerError.
   * @param {PlayerOptions} [options]
   * @returns {Promise<Player>}
   */
  static async create({ sampleRate = 24000, frameMs = 80, format = 'opus', targetMs } = {}) {
    if (format !== 'opus' && format !== 'pcm_s16le') {
      throw new PlayerError('not_supported', `the player takes opus and pcm_s16le, not ${format}`);
    }
    const context = openContext(sampleRate);
    // Without a gesture it stays pending, so it is not waited for.
    context.resume().catch(() => {});
    /** @type {DecoderWorker | null} */
    let worker = null;
    try {
      await context.audioWorklet.addModule(workletUrl);
      worker = await DecoderWorker.create(format, sampleRate);
      return new Player(context, worker, { sampleRate, frameMs, format, targetMs });
    } catch (error) {
      worker?.close();
      await context.close();
      if (error instanceof PlayerError) throw error;
      throw new PlayerError('audio_unavailable', `the browser could not start its audio: ${String(error)}`);
    }
  }

  /**
   * @param {AudioContext} context
   * @param {DecoderWorker} worker
   * @param {{sampleRate: number, frameMs: number, format: 'opus' | 'pcm_s16le', targetMs?: number}} options
   */
  constructor(context, worker, { sampleRate, frameMs, format, targetMs }) {
    this.#context = context;
    this.#worker = worker;
    this.#sampleRate = sampleRate;
    this.#format = format;
    this.#clock = new PlaybackClock(sampleRate);
    this.#buffer = new AdaptiveBuffer({ frameMs, targetMs });
    this.#recording = new Recording(format, sampleRate);
    const shape = { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [1] };
    this.#node = new AudioWorkletNode(context, 'dialogue-playout', shape);
    this.#gain = new GainNode(context);
    this.#analyser = new AnalyserNode(context, { fftSize: FFT_SAMPLES });
    this.#node.connect(this.#gain).connect(this.#analyser).connect(context.destination);
    this.#replay = new Replay(context, this.#gain, (paused) => this.#order('pause', { paused }));
    this.#node.port.onmessage = ({ data }) => this.#take(data);
    this.#node.port.postMessage({ type: 'source', port: worker.source }, [worker.source]);
    worker.onfailure = (message) => this.#emitter.emit('error', new PlayerError('decoder_failed', message));
    this.#order('start', { samples: this.#samples(this.#buffer.startMs) });
  }

  /** What was heard of the session's audio, as in the protocol's `played_ms`: silence and replays don't count. */
  get playedMs() {
    this.#advance();
    return this.#clock.playedMs;
  }

  /** What is there that was not heard yet. */
  get bufferedMs() {
    this.#advance();
    return this.#clock.bufferedMs;
  }

  /** What is to be there before sound begins. */
  get startBufferMs() {
    return this.#buffer.startMs;
  }

  /** How often sound broke off inside a turn. */
  get underruns() {
    return this.#underruns;
  }

  /** Audio frames of the session that were heard to their end. */
  get framesRendered() {
    this.#advance();
    return this.#clock.framesPlayed;
  }

  /** Samples that the audio thread has played. */
  get samplesRendered() {
    return this.#report.rendered;
  }

  /** Whether there is sound of the dialogue at the moment. */
  get playing() {
    return this.#report.playing;
  }

  /** Whether the browser holds the sound back until `resume` is called in a user's gesture. */
  get suspended() {
    return this.#context.state !== 'running';
  }

  /** Everything that sounds, replays too; for meters and waves. */
  get analyser() {
    return this.#analyser;
  }

  /** From 0 to 1. */
  get volume() {
    return this.#gain.gain.value;
  }

  set volume(value) {
    this.#gain.gain.value = value;
  }

  /**
   * @template {keyof PlayerEvents} Type
   * @param {Type} type
   * @param {(event: PlayerEvents[Type]) => void} listener
   * @returns {() => void} what ends the subscription
   */
  on(type, listener) {
    return this.#emitter.on(type, listener);
  }

  /** Let the browser play, in a user's gesture. */
  async resume() {
    await this.#context.resume();
  }

  /**
   * Play a session: its audio, the ends of its turns, and reports of what is heard, which set the server's pace.
   * @param {import('../client/session.js').Session} session
   * @returns {() => void} what ends it
   */
  follow(session) {
    let toldAtMs = -Infinity;
    const tell = () => {
      toldAtMs = performance.now();
      session.played(this.playedMs);
    };
    const heard = [
      session.on('audio', (event) => this.push(event)),
      session.on('turn.completed', ({ index }) => this.endTurn(index)),
      this.on('playing', tell),
      this.on('drained', tell),
      this.on('progress', () => performance.now() - toldAtMs >= REPORT_MS && tell()),
    ];
    return () => heard.forEach((off) => off());
  }

  /**
   * The session's next audio frame.
   * @param {Pick<import('../client/types.js').AudioEvent, 'turnIndex' | 'last' | 'kind' | 'payload'>
   *   & {cancelled?: boolean}} event
   */
  push({ turnIndex, last, kind, payload, cancelled = false }) {
    if (this.#closed) return;
    if (kind !== this.#format) {
      throw new PlayerError('not_supported', `the player was made for ${this.#format}, not ${kind}`);
    }
    const samples = frameSamples({ kind, payload }, this.#sampleRate);
    const stopped = this.#stops.size > 0 || turnIndex <= this.#silencedTurn;
    const silent = cancelled || stopped;
    this.#newestTurn = Math.max(this.#newestTurn, turnIndex);
    this.#recording.add({ payload, samples, turnIndex });
    // What is not heard is decoded all the same: the next frames build on it.
    this.#worker.frame({ payload, samples, epoch: this.#epoch, turnIndex, last, silent });
    if (silent) return;
    this.#clock.push({ turnIndex, samples, last });
    this.#buffer.arrived(performance.now(), (samples / this.#sampleRate) * 1000);
    this.#order('start', { samples: this.#samples(this.#buffer.startMs) });
  }

  /**
   * No more frames of this turn will come; needed for turns whose last frame did not say so.
   * @param {number} turnIndex
   */
  endTurn(turnIndex) {
    if (this.#closed) return;
    this.#worker.end({ epoch: this.#epoch, turnIndex });
    this.#announce(this.#clock.endTurn(turnIndex));
  }

  /**
   * Silence after a short fade. What is buffered is dropped, and so is what still comes of the turns so far.
   * @param {{fadeMs?: number}} [options]
   * @returns {Promise<number>} what was heard of the session's audio, in whole milliseconds
   */
  async stop({ fadeMs = 20 } = {}) {
    if (this.#closed) return Math.floor(this.playedMs);
    this.#epoch += 1;
    this.#numbers += 1;
    const id = this.#numbers;
    // A clock that stands still fades nothing.
    const fadeSamples = this.suspended ? 0 : this.#samples(fadeMs);
    const silence = new Promise((resolve) => {
      const timer = setTimeout(() => resolve(this.#report.rendered), STOP_PATIENCE_MS);
      this.#stops.set(id, (/** @type {number} */ samples) => {
        clearTimeout(timer);
        resolve(samples);
      });
      this.#order('stop', { id, epoch: this.#epoch, fadeSamples });
    });
    // After the order: the dialogue that a replay holds must not be heard again.
    this.#replay.end(fadeMs);
    const rendered = await silence;
    this.#stops.delete(id);
    this.#silencedTurn = this.#newestTurn;
    this.#announce(this.#clock.cut(rendered));
    return Math.floor(this.#clock.playedMs);
  }

  /**
   * Play one turn again. The dialogue waits meanwhile. Resolves when it was heard, or something else was wanted.
   * @param {number} turnIndex
   */
  async replay(turnIndex) {
    const pcm = await this.#recording.turn(turnIndex, this.#worker.stream());
    if (this.#closed) throw new PlayerError('closed', 'the player is closed');
    if (pcm === null) throw new PlayerError('unknown_turn', `nothing of turn ${turnIndex} was received yet`);
    await this.#replay.play(pcm, this.#sampleRate);
  }

  /**
   * Everything received so far.
   * @returns {Promise<Blob>} WAV, 16 bit mono
   */
  async toWav() {
    return await this.#recording.toWav(this.#worker.stream());
  }

  /**
   * Everything received so far, as it came; rejects with PlayerError if that is not Opus.
   * @returns {Promise<Blob>} Ogg Opus
   */
  async toOpus() {
    if (this.#format !== 'opus') throw new PlayerError('not_supported', 'the session is not Opus: download it as WAV');
    return this.#recording.toOpus();
  }

  /** Let go of everything. Twice does no harm. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#replay.end(0);
    this.#order('close');
    this.#worker.close();
    for (const stopped of this.#stops.values()) stopped(this.#report.rendered);
    await this.#context.close();
  }

  /** @param {any} news  of the audio thread */
  #take({ type, rendered, playing, time, ...more }) {
    const changed = playing !== this.#report.playing;
    this.#report = { rendered, playing, time };
    if (type === 'stopped') this.#stops.get(more.id)?.(rendered);
    if (type === 'underrun') this.#underrun(more.turnIndex, more.gapSamples);
    this.#advance();
    // The last samples are on their way to the ear.
    if (!playing && !this.#closed) setTimeout(() => this.#advance(), this.#latencyS() * 1000 + 20);
    if (changed) this.#emitter.emit('playing', { playing });
    if (type === 'report') {
      const { playedMs, bufferedMs } = this.#clock;
      this.#emitter.emit('progress', { playedMs, bufferedMs });
    }
  }

  /**
   * @param {number} turnIndex
   * @param {number} gapSamples
   */
  #underrun(turnIndex, gapSamples) {
    this.#underruns += 1;
    this.#buffer.underrun();
    this.#order('start', { samples: this.#samples(this.#buffer.startMs) });
    this.#emitter.emit('underrun', { turnIndex, gapMs: (gapSamples / this.#sampleRate) * 1000 });
  }

  /** Bring the clock to what has reached the ear by now: what was played, less the way to the loudspeaker. */
  #advance() {
    const { rendered, time } = this.#report;
    const onTheWayS = Math.max(0, this.#latencyS() - (this.#context.currentTime - time));
    this.#announce(this.#clock.advance(rendered - this.#samples(onTheWayS * 1000)));
  }

  #latencyS() {
    return Math.min(MAX_LATENCY_S, this.#context.outputLatency || this.#context.baseLatency || 0);
  }

  /** @param {import('../client/clock.js').ClockEvent[]} events */
  #announce(events) {
    const busy = this.#news.length > 0;
    this.#news.push(...events);
    // A listener that asks how far it is must not hear of what comes later before the others.
    if (busy) return;
    for (; this.#news.length > 0; this.#news.shift()) {
      const event = this.#news[0];
      if (event.type === 'drained') {
        this.#buffer.drained();
        this.#emitter.emit('drained', {});
      } else {
        this.#emitter.emit(event.type, { turnIndex: event.turnIndex });
      }
    }
  }

  /**
   * @param {string} type
   * @param {object} [more]
   */
  #order(type, more) {
    this.#node.port.postMessage({ type, ...more });
  }

  /** @param {number} ms */
  #samples(ms) {
    return Math.round((ms * this.#sampleRate) / 1000);
  }
}

/** @param {number} sampleRate  Hz */
function openContext(sampleRate) {
  const { AudioContext } = globalThis;
  if (AudioContext === undefined || !('audioWorklet' in AudioContext.prototype)) {
    const advice = 'open the page over https, or from localhost';
    throw new PlayerError('insecure_context', `the browser gives no sound to this page: ${advice}`);
  }
  try {
    return new AudioContext({ sampleRate, latencyHint: 'interactive' });
  } catch (error) {
    throw new PlayerError('audio_unavailable', `the browser plays no audio of ${sampleRate} Hz: ${String(error)}`);
  }
}
