const MAX_DOUBLINGS = 64;

/**
 * How long to wait before attempt 1, 2, ...: not at all, then a random part of `baseMs`, of its double and so on up to
 * `capMs`. All of it is random, so that the many clients of one server spread out.
 * @param {number} attempt
 * @param {{baseMs: number, capMs: number, random: () => number}} settings
 */
export function backoffMs(attempt, { baseMs, capMs, random }) {
  if (attempt <= 1) return 0;
  return Math.round(random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt - 2, MAX_DOUBLINGS)));
}

/**
 * Resolves after `ms`, or at once when `signal` aborts.
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, signal.aborted ? 0 : ms);
    signal.addEventListener('abort', done);
  });
}
