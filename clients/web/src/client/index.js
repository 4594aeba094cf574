/**
 * The client of a dialogue streamer server, for browsers and Node 20 or later; needs nothing else.
 *
 * `connect` opens a session; see `Session` for what it can do, and `EventMap` for what it tells.
 */
export { PlaybackClock } from './clock.js';
export { DialogueError } from './errors.js';
export { packetSamples48k, frameSamples } from './opus.js';
export { connect, Session } from './session.js';

/**
 * @typedef {import('./types.js').ConnectOptions} ConnectOptions
 * @typedef {import('./types.js').ConnectionSettings} ConnectionSettings
 * @typedef {import('./types.js').EventMap} EventMap
 * @typedef {import('./types.js').AudioEvent} AudioEvent
 * @typedef {import('./types.js').SessionReady} SessionReady
 * @typedef {import('./types.js').AcceptedTurn} AcceptedTurn
 * @typedef {import('./types.js').Sampling} Sampling
 * @typedef {import('./types.js').Speaker} Speaker
 */
