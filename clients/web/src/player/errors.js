/** Why there is no sound, in words. */
export class PlayerError extends Error {
  /**
   * @param {'insecure_context' | 'audio_unavailable' | 'decoder_failed' | 'not_supported' | 'unknown_turn'
   *   | 'closed'} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = 'PlayerError';
    this.code = code;
  }
}
