/**
 * Open a session. Rejects with DialogueError, which says what to do.
 * @param {string | URL} url  such as `ws://127.0.0.1:8000`; `/` is the server that a page comes from
 * @param {import('./types.js').ConnectOptions} [options]
 * @returns {Promise<Session>}
 */
export function connect(url: string | URL, options?: import("./types.js").ConnectOptions): Promise<Session>;
/**
 * One dialogue, over as many connections as it takes; made by `connect`. What is said while there is no connection
 * waits for the next one. Methods that ask for speech throw DialogueError once the session has ended.
 */
export class Session {
    /**
     * What `connect` does.
     * @param {string | URL} url
     * @param {import('./types.js').ConnectOptions} options
     */
    static open(url: string | URL, options: import("./types.js").ConnectOptions): Promise<Session>;
    /**
     * @param {string | URL} url
     * @param {import('./types.js').ConnectOptions} options
     */
    constructor(url: string | URL, options: import("./types.js").ConnectOptions);
    /** The server's first answer: limits, voices, model, audio format. */
    get ready(): import("./types.js").SessionReady;
    /** `open`, `reconnecting` or `ended`. */
    get state(): "open" | "reconnecting" | "ended";
    /**
     * @template {keyof import('./types.js').EventMap} Type
     * @param {Type} type  of a server's message, or one of the client's own
     * @param {(event: import('./types.js').EventMap[Type]) => void} listener
     * @returns {() => void} what ends the subscription
     */
    on<Type extends keyof import("./types.js").EventMap>(type: Type, listener: (event: import("./types.js").EventMap[Type]) => void): () => void;
    /**
     * Speak a script with tags `[S1]` to `[S5]`. Resolves with its turns when the server has split it.
     * @param {string} text
     * @param {{script?: string, seed?: number | null, sampling?: import('./types.js').Sampling | null}} [options]
     * @returns {Promise<{script: string, turns: import('./types.js').AcceptedTurn[]}>}
     */
    say(text: string, { script, seed, sampling }?: {
        script?: string;
        seed?: number | null;
        sampling?: import("./types.js").Sampling | null;
    }): Promise<{
        script: string;
        turns: import("./types.js").AcceptedTurn[];
    }>;
    /**
     * Speak one whole turn.
     * @param {{speaker: import('./types.js').Speaker, text: string, turn?: string, seed?: number | null,
     *   sampling?: import('./types.js').Sampling | null}} options
     * @returns {string} the turn's id; if the server refuses it, an `error` names it
     */
    createTurn({ speaker, text, turn, seed, sampling }: {
        speaker: import("./types.js").Speaker;
        text: string;
        turn?: string;
        seed?: number | null;
        sampling?: import("./types.js").Sampling | null;
    }): string;
    /**
     * The next piece of a turn's text; the first opens the turn and names the speaker. Comes to nothing when the text is
     * empty, or the turn has ended meanwhile, as when it was cancelled.
     * @param {string} turn
     * @param {string} text
     * @param {{speaker?: import('./types.js').Speaker, seed?: number | null,
     *   sampling?: import('./types.js').Sampling | null}} [options]
     * @returns {boolean} whether it was sent
     */
    append(turn: string, text: string, { speaker, seed, sampling }?: {
        speaker?: import("./types.js").Speaker;
        seed?: number | null;
        sampling?: import("./types.js").Sampling | null;
    }): boolean;
    /**
     * The text of a turn that came in pieces is complete. Twice does no harm.
     * @param {string} turn
     * @returns {boolean} whether there was something to commit
     */
    commit(turn: string): boolean;
    /**
     * Stop a turn, or all of them, at once. Audio frames of them that are still on their way come marked `cancelled`.
     * Comes to nothing once the session has ended.
     * @param {{turn?: string | null, playedMs?: number | null}} [what]  `playedMs`: what was heard of the session's
     *   audio; the dialogue remembers only that. Without it, what was sent counts as heard.
     */
    cancel({ turn, playedMs }?: {
        turn?: string | null;
        playedMs?: number | null;
    }): void;
    /**
     * How much of the session's audio was heard so far: to be told about every second, and when playing stops or goes on.
     * @param {number} ms
     */
    played(ms: number): void;
    /**
     * Round trip in milliseconds; while the connection is lost, it waits for the next one.
     * @returns {Promise<number>}
     */
    ping(): Promise<number>;
    /**
     * End the session, and resolve when that is done. What is not finished is cancelled. Twice does no harm.
     * @returns {Promise<void>}
     */
    close(): Promise<void>;
    #private;
}
