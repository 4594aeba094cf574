import { DialogueError } from './errors.js';

// After so much, the server is asked whether it has it all.
const ASK_BYTES = 32 * 2 ** 10;
const RECEIPT = 'receipt-';
const encoder = new TextEncoder();

/**
 * What a session says, numbered from 0 as the server counts it: sent in order on whatever socket there is, and again
 * on the next if it was lost. Kept until the server is known to have it.
 */
export class Outbox {
  /** @type {{text: string, bytes: number}[]} */
  #log = [];
  #first = 0;
  #heldBytes = 0;
  #unaskedBytes = 0;
  /** @type {((text: string) => void) | null} */
  #send = null;
  #maxBytes;

  /** @param {number} maxBytes  of what the server is not known to have */
  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  get heldBytes() {
    return this.#heldBytes;
  }

  /**
   * Take the next message. Throws DialogueError, taking nothing, if it is too large or too much is held.
   * @param {object} message
   * @param {number} maxMessageBytes
   */
  put(message, maxMessageBytes) {
    const text = JSON.stringify(message);
    const bytes = encoder.encode(text).length;
    if (bytes > maxMessageBytes) {
      const most = `the server takes ${maxMessageBytes}: send it in pieces`;
      throw new DialogueError('message_too_large', `the message has ${bytes} bytes, and ${most}`);
    }
    if (this.#heldBytes + bytes > this.#maxBytes) {
      const held = `${this.#heldBytes} bytes wait for the server to take them`;
      throw new DialogueError('too_much_unsent', `${held}: send less, or later`, { final: false });
    }
    this.#log.push({ text, bytes });
    this.#heldBytes += bytes;
    this.#write(text, bytes);
  }

  /**
   * The session is open on a socket, and the server has `received` messages: send the rest. Throws DialogueError for a
   * number that can't be.
   * @param {(text: string) => void} send
   * @param {number} received
   */
  attach(send, received) {
    const end = this.#first + this.#log.length;
    if (!Number.isInteger(received) || received < this.#first || received > end) {
      const text = `session.ready says received ${received}, which is not in ${this.#first}..${end}`;
      throw new DialogueError('protocol_error', text);
    }
    this.#acknowledge(received);
    this.#send = send;
    this.#unaskedBytes = 0;
    let number = this.#first;
    for (const { text, bytes } of this.#log) this.#write(text, bytes, ++number);
  }

  /** The socket is gone. */
  detach() {
    this.#send = null;
  }

  /**
   * Whether a pong of this name answers a question of this outbox.
   * @param {string | null} id
   */
  takeReceipt(id) {
    if (id === null || !/^receipt-\d+$/.test(id)) return false;
    const number = Number(id.slice(RECEIPT.length));
    this.#acknowledge(Math.min(number, this.#first + this.#log.length));
    return true;
  }

  /** @param {number} number  the server has every message before this one */
  #acknowledge(number) {
    const taken = this.#log.splice(0, Math.max(0, number - this.#first));
    this.#first += taken.length;
    for (const { bytes } of taken) this.#heldBytes -= bytes;
  }

  /**
   * @param {string} text
   * @param {number} bytes
   * @param {number} next  number of the message after it
   */
  #write(text, bytes, next = this.#first + this.#log.length) {
    if (this.#send === null) return;
    this.#send(text);
    this.#unaskedBytes += bytes;
    if (this.#unaskedBytes >= Math.min(ASK_BYTES, this.#maxBytes)) {
      this.#unaskedBytes = 0;
      this.#send(JSON.stringify({ type: 'ping', id: `${RECEIPT}${next}` }));
    }
  }
}
