import { badge, byId, icon, make } from './dom.js';

/** @typedef {import('./take.js').Turn} Turn */

const STATES = {
  waiting: 'waits',
  making: 'is being made',
  speaking: 'speaks',
  heard: '',
  stopped: 'stopped',
  failed: 'could not be spoken',
};

const SCORE_BARS = 60;
const SCORE_TURN_BARS = 12;

/** The turns of the dialogue, lit as they are heard. */
export class Transcript {
  #list = byId('turns', HTMLOListElement);
  #empty = byId('empty', HTMLElement);
  /** @type {Map<Turn, Row>} */
  #rows = new Map();
  #onReplay;

  /** @param {(turn: Turn) => void} onReplay */
  constructor(onReplay) {
    this.#onReplay = onReplay;
    byId('score', SVGSVGElement).append(...scoreBars());
  }

  /**
   * Show a turn as it is now.
   *
   * @param {Turn} turn
   * @param {{follow: boolean}} options follow: keep a turn that begins to speak in view
   */
  show(turn, { follow }) {
    let row = this.#rows.get(turn);
    if (!row) {
      row = new Row(turn, () => this.#onReplay(turn));
      this.#rows.set(turn, row);
      this.#list.append(row.element);
      this.#empty.hidden = true;
    }
    const began = row.show();
    if (began && follow) row.element.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  }

  /**
   * Light the words of a turn up to this moment of it.
   *
   * @param {Turn} turn
   * @param {number} elapsedMs
   */
  light(turn, elapsedMs) {
    this.#rows.get(turn)?.light(elapsedMs);
  }

  /**
   * Let turns be played again, one at a time.
   *
   * @param {Turn | null} playing the one that is being played again
   */
  allowReplay(playing) {
    for (const [turn, row] of this.#rows) row.allowReplay(playing === null, turn === playing);
  }

  /**
   * Say that what follows is a dialogue of its own.
   *
   * @param {string} text
   */
  divide(text) {
    if (this.#rows.size) this.#list.append(make('li', 'divider', text));
  }

  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }
}

/** One turn. */
class Row {
  #state = make('span', 'turn-state');
  #text = make('p', 'turn-text');
  #meta = make('p', 'turn-meta');
  #replay = make('button', 'quiet replay', icon('replay'));
  /** @type {{element: HTMLSpanElement, startMs: number, endMs: number}[]} */
  #words = [];
  #nTimed = 0;
  #shown = '';

  /**
   * @param {Turn} turn
   * @param {() => void} onReplay
   */
  constructor(turn, onReplay) {
    this.turn = turn;
    const name = make('span', 'unseen', `Speaker ${turn.speaker}, `);
    const who = make('p', 'turn-who', name, turn.voice, this.#state);
    this.#replay.type = 'button';
    this.#replay.hidden = true;
    this.#replay.setAttribute('aria-label', `Hear this turn of ${turn.speaker} again`);
    this.#replay.title = 'Hear this turn again';
    this.#replay.addEventListener('click', onReplay);
    this.#text.textContent = turn.text;
    this.element = make('li', 'turn', badge(turn.speaker), who, this.#replay, this.#text, this.#meta);
    this.element.dataset.speaker = turn.speaker;
  }

  /** @returns {boolean} whether it has just begun to speak */
  show() {
    const { turn } = this;
    const began = turn.state === 'speaking' && this.#shown !== 'speaking';
    this.#shown = turn.state;
    this.element.dataset.state = turn.state;
    if (turn.state === 'speaking') this.element.setAttribute('aria-current', 'true');
    else this.element.removeAttribute('aria-current');
    this.#state.textContent = stateText(turn);
    if (turn.state === 'heard') this.light(Infinity);
    this.#meta.textContent = facts(turn);
    if (turn.remembered !== null) this.#showRemembered(turn.remembered);
    else if (turn.words.length > this.#nTimed) this.#showWords();
    return began;
  }

  /** @param {number} elapsedMs */
  light(elapsedMs) {
    for (const { element, startMs, endMs } of this.#words) {
      element.toggleAttribute('data-heard', startMs <= elapsedMs);
      element.toggleAttribute('data-now', startMs <= elapsedMs && elapsedMs < endMs);
    }
  }

  /**
   * @param {boolean} allowed
   * @param {boolean} playing
   */
  allowReplay(allowed, playing) {
    this.#replay.hidden = !this.turn.complete || !this.turn.audioMs;
    // Not disabled, which would take the focus from a keyboard.
    this.#replay.setAttribute('aria-disabled', String(!allowed));
    this.element.toggleAttribute('data-replaying', playing);
  }

  #showWords() {
    const { text, words } = this.turn;
    /** @type {Node[]} */
    const pieces = [];
    let end = 0;
    this.#words = [];
    for (const [word, startMs, endMs] of words) {
      const start = text.indexOf(word, end);
      if (start < 0) continue;
      const element = make('span', 'word', word);
      this.#words.push({ element, startMs, endMs });
      pieces.push(document.createTextNode(text.slice(end, start)), element);
      end = start + word.length;
    }
    this.#nTimed = words.length;
    this.#text.classList.add('timed');
    this.#text.replaceChildren(...pieces, text.slice(end));
  }

  /** @param {string} remembered */
  #showRemembered(remembered) {
    const { text } = this.turn;
    const kept = text.startsWith(remembered) ? remembered.length : 0;
    this.#words = [];
    const lost = make('del', '', text.slice(kept));
    lost.title = 'The dialogue does not remember this';
    this.#text.replaceChildren(...(kept ? [make('span', 'remembered', text.slice(0, kept))] : []), lost);
  }
}

/** @param {Turn} turn */
function stateText({ state, complete, remembered }) {
  if (remembered === '') return 'not heard, forgotten';
  return state === 'making' && complete ? 'is ready' : STATES[state];
}

/** The picture for no turns: five voices, one after the other. */
function scoreBars() {
  return Array.from({ length: SCORE_BARS }, (_, place) => {
    const within = (place % SCORE_TURN_BARS) / SCORE_TURN_BARS;
    const size = 6 + 48 * Math.sin(Math.PI * (within + 0.04)) * (0.55 + 0.45 * Math.abs(Math.sin(2.4 * place)));
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    const box = { x: 5 * place, y: 30 - size / 2, width: 3, height: size, rx: 1.5 };
    for (const [name, value] of Object.entries(box)) bar.setAttribute(name, String(value));
    bar.setAttribute('class', `bar-${1 + Math.floor(place / SCORE_TURN_BARS)}`);
    return bar;
  });
}

/** @param {Turn} turn */
function facts({ text, ttfaMs, audioMs, remembered, complete }) {
  const parts = [];
  if (complete && ttfaMs !== null) parts.push(`first audio after ${Math.max(1, Math.round(ttfaMs))} ms`);
  if (audioMs) parts.push(`${(audioMs / 1000).toFixed(1)} s`);
  if (remembered && remembered !== text) parts.push('the dialogue remembers what is not struck out');
  return parts.join(' · ');
}
