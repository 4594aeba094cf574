/**
 * Whatever was thrown, as a DialogueError.
 * @param {unknown} error
 */
export function asDialogueError(error: unknown): DialogueError;
/** An error that says what was wrong and what to do. */
export class DialogueError extends Error {
    /**
     * From the message on the wire.
     * @param {import('./types.js').ErrorMessage} message
     */
    static of(message: import("./types.js").ErrorMessage): DialogueError;
    /**
     * @param {string} code  Stable: one of the protocol's, or `connection_failed` (no answer), `connection_lost`,
     *   `invalid_address`, `protocol_error` (the server said what it may not), `too_much_unsent`, `closed`, `internal`.
     * @param {string} message
     * @param {{turn?: string | null, retryAfterMs?: number | null, final?: boolean}} [more]
     */
    constructor(code: string, message: string, { turn, retryAfterMs, final }?: {
        turn?: string | null;
        retryAfterMs?: number | null;
        final?: boolean;
    });
    code: string;
    /** The turn or script concerned. */
    turn: string | null;
    /** When trying again makes sense. */
    retryAfterMs: number | null;
    /** Trying again as it is makes no sense. */
    final: boolean;
}
