/**
 * How long to wait before attempt 1, 2, ...: not at all, then a random part of `baseMs`, of its double and so on up to
 * `capMs`. All of it is random, so that the many clients of one server spread out.
 * @param {number} attempt
 * @param {{baseMs: number, capMs: number, random: () => number}} settings
 */
export function backoffMs(attempt: number, { baseMs, capMs, random }: {
    baseMs: number;
    capMs: number;
    random: () => number;
}): number;
/**
 * Resolves after `ms`, or at once when `signal` aborts.
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(ms: number, signal: AbortSignal): Promise<void>;
