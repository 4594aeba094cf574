import { byId } from './dom.js';

/** The server makes at most so much more than was heard. */
const FULL_MS = 10_000;
const TEXT_MS = 250;

/** @typedef {import('../player/index.js').Player} Player */

/** Clock, buffer gauge and the buttons' states. */
export class Dock {
  speak = byId('speak', HTMLButtonElement);
  stop = byId('stop', HTMLButtonElement);
  saveOpus = byId('save-opus', HTMLButtonElement);
  saveWav = byId('save-wav', HTMLButtonElement);
  #speakText = byId('speak-text', HTMLElement);
  #clock = byId('clock', HTMLElement);
  #gauge = byId('buffer', HTMLDivElement);
  #fill = byId('buffer-fill', HTMLDivElement);
  #mark = byId('buffer-mark', HTMLDivElement);
  #text = byId('buffer-text', HTMLElement);
  #lastMs = 0;

  /**
   * @param {{busy: boolean, sounding: boolean, begun: boolean, connecting: boolean}} state
   */
  show({ busy, sounding, begun, connecting }) {
    // Disabled buttons lose the focus, which a keyboard then has to find again.
    this.speak.setAttribute('aria-disabled', String(connecting));
    if (!sounding && document.activeElement === this.stop) this.speak.focus();
    this.#speakText.textContent = connecting ? 'Connecting…' : busy ? 'Add' : 'Speak';
    this.stop.disabled = !sounding;
    this.saveOpus.disabled = this.saveWav.disabled = !begun;
  }

  /**
   * Show what is heard and what is in store.
   *
   * @param {Player} player
   * @param {number} nowMs
   * @param {{last?: boolean}} [options] last: nothing will be measured for a while
   */
  measure(player, nowMs, { last = false } = {}) {
    const { bufferedMs } = player;
    this.#fill.style.transform = `scaleX(${Math.min(1, bufferedMs / FULL_MS)})`;
    this.#mark.hidden = false;
    this.#mark.style.left = `${Math.min(1, player.startBufferMs / FULL_MS) * 100}%`;
    if (!last && nowMs - this.#lastMs < TEXT_MS) return;
    this.#lastMs = nowMs;
    const seconds = (bufferedMs / 1000).toFixed(1);
    this.#clock.textContent = clock(player.playedMs);
    this.#text.textContent = bufferedMs > 0 ? `${seconds} s ahead` : 'buffer empty';
    this.#gauge.setAttribute('aria-valuenow', seconds);
    this.#gauge.setAttribute('aria-valuetext', `${seconds} seconds ahead, ${player.underruns} gaps so far`);
  }

  /** As at the beginning. */
  clear() {
    this.#mark.hidden = true;
    this.#fill.style.transform = 'scaleX(0)';
    this.#clock.textContent = clock(0);
    this.#text.textContent = 'buffer empty';
    this.#gauge.setAttribute('aria-valuenow', '0');
    this.#gauge.setAttribute('aria-valuetext', 'empty');
  }
}

/** @param {number} ms */
function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}
