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
    /**
     * @param {URL} address
     * @param {import('./types.js').ConnectOptions} options
     * @param {Calls} calls
     */
    constructor(address: URL, options: import("./types.js").ConnectOptions, calls: Calls);
    /** The server's first answer. */
    get ready(): import("./types.js").SessionReady;
    /** Whether there is no connection at the moment. */
    get lost(): boolean;
    /** Whether nothing more may be said. */
    get over(): boolean;
    /**
     * Open the session. Rejects with DialogueError.
     * @param {object} start  the session.start
     */
    open(start: object): Promise<void>;
    /**
     * Send, now or when the connection is back. Throws DialogueError, taking nothing, for what is too large.
     * @param {object} message  one that counts
     */
    put(message: object): void;
    /**
     * Send if there is a connection.
     * @param {object} message  one that does not count, and is not sent again
     */
    say(message: object): void;
    /** End the session; `ended` is called when that is done. */
    close(): void;
    /**
     * Nothing more will come or go.
     * @param {DialogueError | null} error  null: it ended in order
     * @param {string} reason
     */
    end(error: DialogueError | null, reason: string): void;
    #private;
}
/**
 * What a link tells; each call may end it.
 */
export type Calls = {
    message: (message: any) => void;
    audio: (frame: Omit<ReturnType<typeof parseFrame>, "handle">) => void;
    pong: (id: string | null) => void;
    /**
     * a session is open on a new socket
     */
    attached: () => void;
    reconnecting: (event: import("./types.js").Reconnecting) => void;
    resumed: (event: {
        lostMs: number;
    }) => void;
    /**
     * once, and the last; no error: in order
     */
    ended: (error: DialogueError | null, reason: string) => void;
};
import { DialogueError } from './errors.js';
import { parseFrame } from './frame.js';
