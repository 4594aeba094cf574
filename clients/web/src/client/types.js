/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 *
 * @typedef {'S1' | 'S2' | 'S3' | 'S4' | 'S5'} Speaker
 * @typedef {'opus' | 'pcm_s16le' | 'mulaw'} Format
 *
 * @typedef {object} Sampling  What is left out is the model's own.
 * @property {number} [audio_temperature]
 * @property {number} [audio_top_p]
 * @property {number} [audio_top_k]
 * @property {number} [audio_repetition_penalty]
 * @property {number} [text_temperature]
 * @property {number} [text_top_p]
 * @property {number} [text_top_k]
 *
 * @typedef {object} AudioRequest
 * @property {Format} [format]  `opus` by default.
 * @property {number} [sample_rate]  Hz; 24000 by default.
 * @property {number} [frame_ms]  20, 40, 60 or 80; 80 by default.
 * @property {number} [bitrate]  bit/s, counts for Opus; 32000 by default.
 *
 * @typedef {Required<AudioRequest>} AudioFormat
 *
 * @typedef {object} SocketLike  The part of the browser's WebSocket that is used.
 * @property {number} readyState
 * @property {string} protocol
 * @property {any} binaryType  takes `arraybuffer`
 * @property {(data: string) => void} send
 * @property {(code?: number, reason?: string) => void} close
 * @property {(type: any, listener: (event: any) => void) => void} addEventListener
 *
 * @typedef {object} ConnectOptions
 * @property {Partial<Record<Speaker, string>>} [voices]  Voice ids; speakers left out get the server's own choice.
 * @property {AudioRequest} [audio]
 * @property {boolean} [words]  Ask for `turn.words`.
 * @property {number | null} [seed]  0 to 2^53-1; the same seed and inputs give the same speech.
 * @property {Sampling} [sampling]
 * @property {string | null} [language]  BCP 47 tag.
 * @property {'turns' | 'script'} [mode]
 * @property {string | (() => string | Promise<string>) | null} [token]  A client token, or what fetches one: it is
 *   asked before each connection, so that a token that has expired meanwhile does no harm.
 * @property {boolean} [resume]  Go on over a new connection when one is lost; true by default.
 * @property {new (url: any, protocols: any) => SocketLike} [WebSocket]  The global one by default. Node has
 *   one from version 22 on; before, pass that of the package `ws`.
 * @property {ConnectionSettings} [settings]
 *
 * @typedef {object} ConnectionSettings  How the connection behaves; every value has a good default.
 * @property {number} [attemptTimeoutMs]  What one attempt to connect may take; 5000.
 * @property {number} [heartbeatMs]  After so much silence the server is asked for a sign of life, and taken for dead
 *   if none comes for as long again; 10000.
 * @property {number} [closeTimeoutMs]  How long `close` waits for the server's good-bye; 5000.
 * @property {number} [backoffBaseMs]  The second attempt comes after a random part of it, later ones of its
 *   doublings; 250.
 * @property {number} [backoffCapMs]  10000.
 * @property {number} [maxUnsentBytes]  Messages that the server is not known to have; 2^20.
 * @property {() => number} [random]  Math.random by default.
 *
 * @typedef {object} Limits
 * @property {number} max_message_bytes
 * @property {number} max_text_chars
 * @property {number} max_contexts
 * @property {number} max_sessions_per_key
 * @property {number} max_queued_turns
 * @property {number} max_turn_audio_ms
 * @property {number} max_speakers
 * @property {number} max_messages_per_s
 * @property {number} max_bytes_per_s
 * @property {number} max_session_ms
 * @property {number} idle_timeout_ms
 * @property {number} handshake_timeout_ms
 * @property {number} resume_grace_ms
 * @property {number} max_upload_bytes
 * @property {number} max_upload_ms
 *
 * @typedef {object} SessionReady
 * @property {'session.ready'} type
 * @property {string} context
 * @property {string} session
 * @property {string | null} resume_token
 * @property {number} handle
 * @property {string} model
 * @property {AudioFormat} audio
 * @property {Partial<Record<Speaker, string>>} voices
 * @property {Limits} limits
 * @property {boolean} resumed
 * @property {number} received
 *
 * @typedef {{turn: string, speaker: Speaker, text: string}} AcceptedTurn
 * @typedef {{type: 'script.accepted', context: string, script: string, turns: AcceptedTurn[]}} ScriptAccepted
 * @typedef {{type: 'queued', context: string, turn: string, position: number}} Queued
 * @typedef {{type: 'turn.started', context: string, turn: string, index: number, speaker: Speaker,
 *   first_frame: number}} TurnStarted
 * @typedef {{type: 'turn.completed', context: string, turn: string, index: number, frames: number, audio_ms: number,
 *   ttfa_ms: number | null, rtf: number | null, reason: 'end' | 'cancelled' | 'max_length' | 'error'}} TurnCompleted
 * @typedef {{type: 'turn.truncated', context: string, turn: string, index: number, heard_ms: number,
 *   text: string}} TurnTruncated
 * @typedef {{type: 'turn.words', context: string, turn: string, words: [string, number, number][]}} TurnWords
 * @typedef {{type: 'session.idle', context: string}} SessionIdle
 * @typedef {{type: 'session.closed', context: string, reason: string}} SessionClosed
 * @typedef {{type: 'error', context: string, code: string, message: string, turn: string | null, fatal: boolean,
 *   retry_after_ms: number | null}} ErrorMessage
 *
 * @typedef {object} AudioEvent  One audio frame.
 * @property {number} turnIndex
 * @property {string} turn  The turn's id.
 * @property {number} frame  Its number, counted from 0 through the whole session, without gaps.
 * @property {boolean} last  The last frame of its turn.
 * @property {Format} kind
 * @property {Uint8Array} payload  An Opus packet, or samples.
 * @property {boolean} cancelled  The turn was cancelled here while the frame was on its way: not to be heard, though
 *   an Opus decoder should see it.
 *
 * @typedef {{attempt: number, delayMs: number, reason: string}} Reconnecting
 */

/**
 * @typedef {{
 *   'audio': AudioEvent,
 *   'script.accepted': ScriptAccepted,
 *   'queued': Queued,
 *   'turn.started': TurnStarted,
 *   'turn.completed': TurnCompleted,
 *   'turn.truncated': TurnTruncated,
 *   'turn.words': TurnWords,
 *   'session.idle': SessionIdle,
 *   'session.closed': SessionClosed,
 *   'error': ErrorMessage,
 *   'reconnecting': Reconnecting,
 *   'resumed': {lostMs: number},
 *   'lost': import('./errors.js').DialogueError,
 *   'closed': {reason: string},
 * }} EventMap  What `session.on` takes, and what listeners get. One of `lost` (against your will) and `closed` comes
 *   at the end, once; nothing comes after it.
 */

export {};
