/**
 * Notices that nothing is heard of a server any more. Scripts of browsers can't send WebSocket pings, so the
 * protocol's own is asked for, and only in silence.
 */
export class Heartbeat {
    /**
     * @param {number} intervalMs
     * @param {{ask: () => void, dead: () => void}} calls
     */
    constructor(intervalMs: number, calls: {
        ask: () => void;
        dead: () => void;
    });
    /** There is a new connection. */
    start(): void;
    stop(): void;
    /** The server has said something. */
    heard(): void;
    #private;
}
