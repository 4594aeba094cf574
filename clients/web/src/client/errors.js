/** An error that says what was wrong and what to do. */
export class DialogueError extends Error {
  /**
   * @param {string} code  Stable: one of the protocol's, or `connection_failed` (no answer), `connection_lost`,
   *   `invalid_address`, `protocol_error` (the server said what it may not), `too_much_unsent`, `closed`, `internal`.
   * @param {string} message
   * @param {{turn?: string | null, retryAfterMs?: number | null, final?: boolean}} [more]
   */
  constructor(code, message, { turn = null, retryAfterMs = null, final = true } = {}) {
    super(message);
    this.name = 'DialogueError';
    this.code = code;
    /** The turn or script concerned. */
    this.turn = turn;
    /** When trying again makes sense. */
    this.retryAfterMs = retryAfterMs;
    /** Trying again as it is makes no sense. */
    this.final = final;
  }

  /**
   * From the message on the wire.
   * @param {import('./types.js').ErrorMessage} message
   */
  static of(message) {
    const { code, turn, retry_after_ms: retryAfterMs } = message;
    const final = message.fatal || code === 'resume_failed';
    return new DialogueError(code, message.message, { turn, retryAfterMs, final });
  }
}

/**
 * Whatever was thrown, as a DialogueError.
 * @param {unknown} error
 */
export function asDialogueError(error) {
  if (error instanceof DialogueError) return error;
  return new DialogueError('internal', String(error));
}
