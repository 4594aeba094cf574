import { byId } from './dom.js';
import { describe } from './errors.js';

/** The field for a key or client token; shown when the server asks for one. */
export class Access {
  #form = byId('access', HTMLFormElement);
  #field = byId('credential', HTMLInputElement);
  #problem = byId('access-problem', HTMLElement);

  /**
   * @param {import('./api.js').Api} api
   * @param {() => void} onOpen called when the server took what was entered
   */
  constructor(api, onOpen) {
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#use(api, onOpen);
    });
  }

  /** Ask, with the words of the server. @param {string} reason */
  ask(reason) {
    this.#problem.textContent = reason;
    this.#form.hidden = false;
    this.#field.focus();
  }

  /**
   * @param {import('./api.js').Api} api
   * @param {() => void} onOpen
   */
  async #use(api, onOpen) {
    this.#problem.textContent = '';
    try {
      await api.authorize(this.#field.value.trim());
    } catch (error) {
      this.ask(describe(error).title);
      return;
    }
    this.#form.hidden = true;
    this.#field.value = '';
    onOpen();
  }
}
