/** What to do about an error, by its code; the server's own words say what was wrong. */
const ADVICE = {
  connection_failed: 'Check that the server runs and that you are online, then press Speak again.',
  unreachable: 'Check that the server runs and that you are online, then press Speak again.',
  unauthorized: 'Enter a valid key or client token.',
  forbidden: 'Ask whoever runs this server for a key that may do this.',
  overloaded: 'Try again in a moment.',
  too_many_sessions: 'Close another dialogue of this key, then press Speak again.',
  rate_limited: 'Wait a moment, then try again.',
  shutting_down: 'Try again in a minute.',
  no_speech: 'Write at least one word after a tag such as [S1].',
  invalid_script: 'Write each turn as [S1] followed by what is said.',
  too_many_speakers: 'Use the tags [S1] to [S5].',
  text_too_long: 'Make it shorter, or speak it in parts.',
  message_too_large: 'Make it shorter, or speak it in parts.',
  queue_full: 'Wait until some turns are spoken, then add the rest.',
  unknown_voice: 'Choose another voice; reload the page if it is still in the list.',
  resume_failed: 'Press Speak to begin a new dialogue. What you heard can still be saved.',
  no_voice_store: 'Start it with --voices-store and a folder to allow uploads.',
  voice_exists: 'Choose another short name.',
  bad_recording: 'Use a clear recording of one speaker, 1 to 30 seconds long.',
  microphone: 'Allow the microphone for this page, or choose a file.',
  insecure_context: "Open this page by https, or on the server's own machine by localhost.",
  audio_unavailable: 'Use a current version of Firefox, Chrome, Edge or Safari.',
  decoder_failed: 'Reload the page to go on.',
  unknown_turn: 'Wait until the turn was made.',
};

/** How the server's words begin: the message and the field at fault, which mean nothing to who reads them here. */
const WHERE = /^[a-z]+\.[a-z]+: (?:`[^`]+`: )?/;

/** What a dialogue's end means, by its reason. */
const ENDINGS = {
  idle_timeout: 'Nothing was said for a while, so the server ended the dialogue.',
  session_too_long: 'The dialogue reached the longest time that this server allows.',
  shutting_down: 'The server is being stopped.',
  'resumed elsewhere': 'The dialogue goes on in another window.',
};

/** An error with a stable code and a message for people. */
export class PageError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = 'PageError';
    this.code = code;
  }
}

/**
 * The code of anything that was thrown; 'internal' for what has none.
 *
 * @param {unknown} error
 * @returns {string}
 */
export function codeOf(error) {
  const code = error && typeof error === 'object' && 'code' in error ? error.code : null;
  return typeof code === 'string' ? code : 'internal';
}

/**
 * An error in words: what was wrong, and what to do.
 *
 * @param {unknown} error
 * @returns {{title: string, text: string}}
 */
export function describe(error) {
  const message = (error instanceof Error ? error.message : String(error)).replace(WHERE, '');
  const advice = /** @type {Record<string, string>} */ (ADVICE)[codeOf(error)] ?? 'Press Speak to try again.';
  return { title: sentence(message), text: advice };
}

/**
 * Why a dialogue ended, in words.
 *
 * @param {string} reason
 * @returns {{title: string, text: string}}
 */
export function describeEnd(reason) {
  const known = /** @type {Record<string, string>} */ (ENDINGS)[reason];
  return {
    title: known ?? sentence(`the dialogue ended: ${reason}`),
    text: 'Press Speak to begin a new one. What you heard can still be saved.',
  };
}

/**
 * @param {string} message
 * @returns {string} with a capital and a full stop
 */
function sentence(message) {
  const text = message.trim() || 'something went wrong';
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}
