import { byId } from './dom.js';

const NEWS_MS = 8000;

/** What the page has to say: one notice at a time, and a quiet line for screen readers. */
export class Notices {
  #box = byId('notice', HTMLDivElement);
  #title = byId('notice-title', HTMLElement);
  #text = byId('notice-text', HTMLElement);
  #announcer = byId('announcer', HTMLElement);
  #timer = 0;

  constructor() {
    byId('notice-close', HTMLButtonElement).addEventListener('click', () => {
      this.clear();
      byId('script', HTMLTextAreaElement).focus();
    });
  }

  /**
   * Show what went wrong and what to do, until it is dismissed or something else is shown.
   *
   * @param {{title: string, text: string}} words
   */
  problem(words) {
    this.#show('problem', 'alert', words);
  }

  /**
   * Show something that is no error.
   *
   * @param {{title: string, text: string}} words
   * @param {{lasting?: boolean}} [options] lasting: until something else is shown
   */
  news(words, { lasting = false } = {}) {
    this.#show('news', 'status', words);
    if (!lasting) this.#timer = window.setTimeout(() => this.clear(), NEWS_MS);
  }

  /** Take away what is shown. */
  clear() {
    window.clearTimeout(this.#timer);
    this.#box.hidden = true;
  }

  /**
   * Tell screen readers alone.
   *
   * @param {string} text
   */
  announce(text) {
    this.#announcer.textContent = text;
  }

  /**
   * @param {'problem' | 'news'} kind
   * @param {string} role
   * @param {{title: string, text: string}} words
   */
  #show(kind, role, { title, text }) {
    window.clearTimeout(this.#timer);
    this.#box.dataset.kind = kind;
    this.#box.setAttribute('role', role);
    this.#box.hidden = false;
    this.#title.textContent = title;
    this.#text.textContent = text;
  }
}
