import { PageError } from './errors.js';

/**
 * @typedef {object} Voice
 * @property {string} id
 * @property {string} language
 * @property {string} description
 * @property {boolean} removable
 */

/** How an API key begins; anything else is taken for a client token. */
const KEY_PREFIX = 'ds_';
const TOKEN_TTL_S = 3600;
const SCOPES = ['dialogue', 'voices:read', 'voices:write'];

/** The server's HTTP side. Every method throws PageError. */
export class Api {
  /** @type {string | undefined} */
  #token;

  /** @param {URL} base the address that the page was loaded from */
  constructor(base) {
    this.base = base;
  }

  /** The client token, if the server asked for one. */
  get token() {
    return this.#token;
  }

  /** Where the dialogue socket is, as `connect` takes it. */
  get dialogueUrl() {
    return new URL('v1/dialogue', this.base).href;
  }

  /**
   * Who can speak.
   *
   * @returns {Promise<Voice[]>}
   */
  async voices() {
    return (await this.#request('v1/voices')).data;
  }

  /**
   * Make a voice of a recording.
   *
   * @param {FormData} form the fields of POST /v1/voices
   * @returns {Promise<Voice>}
   */
  async upload(form) {
    return this.#request('v1/voices', { method: 'POST', body: form });
  }

  /**
   * Use a key or client token from now on. A key is traded for a token at once, and is not kept.
   *
   * @param {string} credential
   */
  async authorize(credential) {
    this.#token = credential.startsWith(KEY_PREFIX) ? await this.#trade(credential) : credential;
    try {
      await this.voices();
    } catch (error) {
      this.#token = undefined;
      throw error;
    }
  }

  /**
   * @param {string} key
   * @returns {Promise<string>}
   */
  async #trade(key) {
    const ask = (/** @type {string[]} */ scopes) =>
      this.#request('v1/tokens', {
        method: 'POST',
        headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
        body: JSON.stringify({ scopes, ttl_s: TOKEN_TTL_S }),
      });
    try {
      return (await ask(SCOPES)).token;
    } catch (error) {
      // Most keys may not add voices.
      if (!(error instanceof PageError) || error.code !== 'forbidden') throw error;
      return (await ask(SCOPES.slice(0, 2))).token;
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<any>} the parsed body
   */
  async #request(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.#token && !headers.has('Authorization')) headers.set('Authorization', `Bearer ${this.#token}`);
    let answer;
    try {
      answer = await fetch(new URL(path, this.base), { ...options, headers });
    } catch {
      throw new PageError('unreachable', "the server can't be reached");
    }
    const body = await answer.json().catch(() => null);
    if (answer.ok && body !== null) return body;
    const problem = body?.error ?? {};
    const message = problem.message ?? `the server answered ${answer.status} to ${path}`;
    throw new PageError(problem.code ?? 'internal', message);
  }
}
