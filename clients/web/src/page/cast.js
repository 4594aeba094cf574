import { badge, byId, make } from './dom.js';

/** @typedef {import('./api.js').Voice} Voice */

const SPEAKERS = ['S1', 'S2', 'S3', 'S4', 'S5'];

/** Which voice each speaker has. Speakers that are not in the script keep theirs for later. */
export class Cast {
  #rows = byId('cast-rows', HTMLDivElement);
  #hint = byId('cast-hint', HTMLElement);
  /** @type {Voice[]} */
  #voices = [];
  /** @type {string[]} */
  #speakers = [];
  /** @type {Record<string, string>} */
  #chosen = {};
  #locked = false;

  /** Voice ids by speaker, for session.start; empty while the server's voices are not known. */
  get voices() {
    if (!this.#voices.length) return {};
    return Object.fromEntries(SPEAKERS.map((speaker) => [speaker, this.#voiceOf(speaker)]));
  }

  /**
   * @param {Voice[]} voices those of the server
   */
  offer(voices) {
    this.#voices = voices;
    this.#show();
  }

  /**
   * @param {string[]} speakers those of the script
   */
  show(speakers) {
    if (speakers.join() === this.#speakers.join()) return;
    this.#speakers = speakers;
    this.#show();
  }

  /**
   * Let the voices be changed or not; within a dialogue they stay.
   *
   * @param {boolean} locked
   */
  lock(locked) {
    this.#locked = locked;
    this.#hint.hidden = !locked;
    for (const select of this.#rows.querySelectorAll('select')) select.disabled = locked;
  }

  /**
   * Give a new voice to the last speaker of the script.
   *
   * @param {string} id
   */
  use(id) {
    const speaker = this.#speakers.at(-1);
    if (speaker && !this.#locked) this.#chosen[speaker] = id;
    this.#show();
  }

  /** @param {string} speaker */
  #voiceOf(speaker) {
    const kept = this.#chosen[speaker];
    if (this.#voices.some((voice) => voice.id === kept)) return kept;
    // From both ends of the list in turn: neighbours in it are often variants of one voice.
    const place = SPEAKERS.indexOf(speaker) % this.#voices.length;
    const half = Math.floor(place / 2);
    return this.#voices[place % 2 ? this.#voices.length - 1 - half : half].id;
  }

  #show() {
    this.#rows.replaceChildren(...this.#speakers.map((speaker) => this.#row(speaker)));
  }

  /** @param {string} speaker */
  #row(speaker) {
    const select = make('select');
    select.setAttribute('aria-label', `Voice of ${speaker}`);
    select.disabled = this.#locked || !this.#voices.length;
    if (this.#voices.length) {
      for (const voice of this.#voices) select.add(new Option(label(voice), voice.id));
      select.value = this.#voiceOf(speaker);
    } else {
      select.add(new Option("The server's own choice"));
    }
    select.addEventListener('change', () => {
      this.#chosen[speaker] = select.value;
    });
    return make('div', 'cast-row', badge(speaker), select);
  }
}

/** @param {Voice} voice */
function label(voice) {
  const facts = [voice.description, voice.language].filter(Boolean).join(', ');
  return facts ? `${voice.id} (${facts})` : voice.id;
}
