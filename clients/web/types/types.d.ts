/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type Speaker = "S1" | "S2" | "S3" | "S4" | "S5";
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type Format = "opus" | "pcm_s16le" | "mulaw";
/**
 * What is left out is the model's own.
 */
export type Sampling = {
    audio_temperature?: number | undefined;
    audio_top_p?: number | undefined;
    audio_top_k?: number | undefined;
    audio_repetition_penalty?: number | undefined;
    text_temperature?: number | undefined;
    text_top_p?: number | undefined;
    text_top_k?: number | undefined;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type AudioRequest = {
    /**
     * `opus` by default.
     */
    format?: Format | undefined;
    /**
     * Hz; 24000 by default.
     */
    sample_rate?: number | undefined;
    /**
     * 20, 40, 60 or 80; 80 by default.
     */
    frame_ms?: number | undefined;
    /**
     * bit/s, counts for Opus; 32000 by default.
     */
    bitrate?: number | undefined;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type AudioFormat = Required<AudioRequest>;
/**
 * The part of the browser's WebSocket that is used.
 */
export type SocketLike = {
    readyState: number;
    protocol: string;
    /**
     * takes `arraybuffer`
     */
    binaryType: any;
    send: (data: string) => void;
    close: (code?: number, reason?: string) => void;
    addEventListener: (type: any, listener: (event: any) => void) => void;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type ConnectOptions = {
    /**
     * Voice ids; speakers left out get the server's own choice.
     */
    voices?: Partial<Record<Speaker, string>> | undefined;
    audio?: AudioRequest | undefined;
    /**
     * Ask for `turn.words`.
     */
    words?: boolean | undefined;
    /**
     * 0 to 2^53-1; the same seed and inputs give the same speech.
     */
    seed?: number | null | undefined;
    sampling?: Sampling | undefined;
    /**
     * BCP 47 tag.
     */
    language?: string | null | undefined;
    mode?: "turns" | "script" | undefined;
    /**
     * A client token, or what fetches one: it is
     * asked before each connection, so that a token that has expired meanwhile does no harm.
     */
    token?: string | (() => string | Promise<string>) | null | undefined;
    /**
     * Go on over a new connection when one is lost; true by default.
     */
    resume?: boolean | undefined;
    /**
     * The global one by default. Node has
     * one from version 22 on; before, pass that of the package `ws`.
     */
    WebSocket?: (new (url: any, protocols: any) => SocketLike) | undefined;
    settings?: ConnectionSettings | undefined;
};
/**
 * How the connection behaves; every value has a good default.
 */
export type ConnectionSettings = {
    /**
     * What one attempt to connect may take; 5000.
     */
    attemptTimeoutMs?: number | undefined;
    /**
     * After so much silence the server is asked for a sign of life, and taken for dead
     * if none comes for as long again; 10000.
     */
    heartbeatMs?: number | undefined;
    /**
     * How long `close` waits for the server's good-bye; 5000.
     */
    closeTimeoutMs?: number | undefined;
    /**
     * The second attempt comes after a random part of it, later ones of its
     * doublings; 250.
     */
    backoffBaseMs?: number | undefined;
    /**
     * 10000.
     */
    backoffCapMs?: number | undefined;
    /**
     * Messages that the server is not known to have; 2^20.
     */
    maxUnsentBytes?: number | undefined;
    /**
     * Math.random by default.
     */
    random?: (() => number) | undefined;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type Limits = {
    max_message_bytes: number;
    max_text_chars: number;
    max_contexts: number;
    max_sessions_per_key: number;
    max_queued_turns: number;
    max_turn_audio_ms: number;
    max_speakers: number;
    max_messages_per_s: number;
    max_bytes_per_s: number;
    max_session_ms: number;
    idle_timeout_ms: number;
    handshake_timeout_ms: number;
    resume_grace_ms: number;
    max_upload_bytes: number;
    max_upload_ms: number;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type SessionReady = {
    type: "session.ready";
    context: string;
    session: string;
    resume_token: string | null;
    handle: number;
    model: string;
    audio: AudioFormat;
    voices: Partial<Record<Speaker, string>>;
    limits: Limits;
    resumed: boolean;
    received: number;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type AcceptedTurn = {
    turn: string;
    speaker: Speaker;
    text: string;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type ScriptAccepted = {
    type: "script.accepted";
    context: string;
    script: string;
    turns: AcceptedTurn[];
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type Queued = {
    type: "queued";
    context: string;
    turn: string;
    position: number;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type TurnStarted = {
    type: "turn.started";
    context: string;
    turn: string;
    index: number;
    speaker: Speaker;
    first_frame: number;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type TurnCompleted = {
    type: "turn.completed";
    context: string;
    turn: string;
    index: number;
    frames: number;
    audio_ms: number;
    ttfa_ms: number | null;
    rtf: number | null;
    reason: "end" | "cancelled" | "max_length" | "error";
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type TurnTruncated = {
    type: "turn.truncated";
    context: string;
    turn: string;
    index: number;
    heard_ms: number;
    text: string;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type TurnWords = {
    type: "turn.words";
    context: string;
    turn: string;
    words: [string, number, number][];
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type SessionIdle = {
    type: "session.idle";
    context: string;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type SessionClosed = {
    type: "session.closed";
    context: string;
    reason: string;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type ErrorMessage = {
    type: "error";
    context: string;
    code: string;
    message: string;
    turn: string | null;
    fatal: boolean;
    retry_after_ms: number | null;
};
/**
 * One audio frame.
 */
export type AudioEvent = {
    turnIndex: number;
    /**
     * The turn's id.
     */
    turn: string;
    /**
     * Its number, counted from 0 through the whole session, without gaps.
     */
    frame: number;
    /**
     * The last frame of its turn.
     */
    last: boolean;
    kind: Format;
    /**
     * An Opus packet, or samples.
     */
    payload: Uint8Array;
    /**
     * The turn was cancelled here while the frame was on its way: not to be heard, though
     * an Opus decoder should see it.
     */
    cancelled: boolean;
};
/**
 * What the client takes and gives. Times are milliseconds of audio unless said otherwise; the protocol's own
 * messages keep the field names that they have on the wire.
 */
export type Reconnecting = {
    attempt: number;
    delayMs: number;
    reason: string;
};
/**
 * What `session.on` takes, and what listeners get. One of `lost` (against your will) and `closed` comes
 *   at the end, once; nothing comes after it.
 */
export type EventMap = {
    "audio": AudioEvent;
    "script.accepted": ScriptAccepted;
    "queued": Queued;
    "turn.started": TurnStarted;
    "turn.completed": TurnCompleted;
    "turn.truncated": TurnTruncated;
    "turn.words": TurnWords;
    "session.idle": SessionIdle;
    "session.closed": SessionClosed;
    "error": ErrorMessage;
    "reconnecting": Reconnecting;
    "resumed": {
        lostMs: number;
    };
    "lost": import("./errors.js").DialogueError;
    "closed": {
        reason: string;
    };
};
