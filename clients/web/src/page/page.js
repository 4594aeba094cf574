import { Access } from './access.js';
import { Api } from './api.js';
import { Cast } from './cast.js';
import { Dock } from './dock.js';
import { byId } from './dom.js';
import { Editor } from './editor.js';
import { codeOf, describe, describeEnd } from './errors.js';
import { Notices } from './notices.js';
import { formatScript } from './script.js';
import { Take } from './take.js';
import { Transcript } from './transcript.js';
import { Upload } from './upload.js';
import { Wave } from './wave.js';

/** @typedef {import('./take.js').Turn} Turn */

const CONNECTION_TEXT = { open: 'Connected', reconnecting: 'Reconnecting…', ended: 'Not connected' };
const READY_TEXT = 'Ready';

/** The page: what its parts tell each other. */
export class Page {
  /** The dialogue that is open or was the last to be. @type {Take | null} */
  take = null;
  #api = new Api(new URL('.', location.href));
  #notices = new Notices();
  #cast = new Cast();
  #dock = new Dock();
  #wave = new Wave(byId('wave', HTMLCanvasElement));
  #transcript = new Transcript((turn) => void this.replay(turn));
  #editor = new Editor((speakers) => this.#cast.show(speakers));
  #access = new Access(this.#api, () => void this.loadVoices());
  #seed = byId('seed', HTMLInputElement);
  #newDialogue = byId('new-dialogue', HTMLButtonElement);
  #firstSound = byId('first-sound', HTMLElement);
  /** The dialogue that each turn belongs to. @type {Map<Turn, Take>} */
  #takes = new Map();
  #asking = false;
  #connecting = false;
  /** @type {Turn | null} */
  #replaying = null;
  #askedAtMs = 0;
  #drawing = false;

  constructor() {
    new Upload(this.#api, (voice) => void this.#added(voice.id));
    this.#dock.speak.addEventListener('click', () => void this.speak());
    this.#dock.stop.addEventListener('click', () => void this.stop());
    this.#dock.saveOpus.addEventListener('click', () => void this.#save('opus'));
    this.#dock.saveWav.addEventListener('click', () => void this.#save('wav'));
    this.#newDialogue.addEventListener('click', () => void this.restart());
    document.addEventListener('keydown', (event) => this.#key(event));
    this.#show();
  }

  /** Draw with the colours of now. */
  recolour() {
    this.#wave.recolour();
  }

  /** Ask the server who can speak. */
  async loadVoices() {
    try {
      this.#cast.offer(await this.#api.voices());
    } catch (error) {
      this.#problem(error);
    }
  }

  /** Speak what is in the field: at once, or after what is still to be heard. */
  async speak() {
    // A key that is held down asks many times.
    if (this.#asking) return;
    const script = this.#editor.text;
    if (!script.trim()) {
      this.#notices.problem({ title: 'There is nothing to speak yet.', text: 'Write a line such as [S1] Hello.' });
      this.#editor.focus();
      return;
    }
    const seed = this.#seed.value.trim();
    if (seed && !/^\d{1,15}$/.test(seed)) {
      this.#notices.problem({ title: 'The seed is not a number.', text: 'Use up to 15 digits, or leave it empty.' });
      this.#seed.focus();
      return;
    }
    this.#notices.clear();
    if (!this.take?.busy) this.#askedAtMs = performance.now();
    this.#asking = true;
    await this.#ask(script, seed ? Number(seed) : null);
    this.#asking = false;
    this.#show();
  }

  /** Silence at once, whatever is heard. */
  async stop() {
    const sounding = this.#replaying ? this.#takes.get(this.#replaying) : null;
    const takes = new Set([sounding, this.take?.busy ? this.take : null].filter((take) => take != null));
    if (!takes.size) return;
    const stopped = [...takes].map((take) => take.stop());
    this.#notices.announce('Stopped.');
    this.#show();
    await Promise.all(stopped);
    if (this.take) this.#dock.measure(this.take.player, performance.now(), { last: true });
  }

  /**
   * Play a turn again from what was kept of it.
   *
   * @param {Turn} turn
   */
  async replay(turn) {
    const take = this.#takes.get(turn);
    if (!take || turn.index === null || this.#replaying) return;
    this.#replaying = turn;
    this.#show();
    this.#draw();
    try {
      await take.player.replay(turn.index);
    } catch (error) {
      this.#problem(error);
    }
    this.#replaying = null;
    this.#show();
  }

  /** End the dialogue; its script goes back into the field, if that is empty. */
  async restart() {
    const { take } = this;
    if (!this.#editor.text.trim()) this.#editor.text = formatScript([...this.#takes.keys()]);
    this.take = null;
    const takes = new Set([...this.#takes.values(), ...(take ? [take] : [])]);
    this.#takes.clear();
    this.#transcript.clear();
    this.#wave.clear();
    this.#dock.clear();
    this.#firstSound.textContent = '';
    this.#notices.clear();
    this.#show();
    this.#editor.focus();
    await Promise.all([...takes].map((one) => one.close()));
  }

  /**
   * @param {string} script
   * @param {number | null} seed
   */
  async #ask(script, seed) {
    const before = this.take;
    /** @type {Take | null} */
    let take = null;
    try {
      take = await this.#open(seed);
      const accepted = take.say(script);
      this.#show();
      await accepted;
      if (this.#editor.text === script) this.#editor.text = '';
      this.#notices.announce('Speaking.');
    } catch (error) {
      // Who began anew meanwhile does not want to know.
      if (take !== null && take !== this.take) return;
      this.#problem(error);
      this.#dropUnused(before);
    }
  }

  /** @param {number | null} seed */
  async #open(seed) {
    if (this.take && this.take.connection !== 'ended') {
      await this.take.player.resume();
      return this.take;
    }
    this.#connecting = true;
    this.#show();
    try {
      const { dialogueUrl: url, token } = this.#api;
      const take = await Take.begin({ url, voices: this.#cast.voices, seed, token });
      this.take = take;
      this.#listen(take);
      return take;
    } finally {
      this.#connecting = false;
    }
  }

  /**
   * Go back to the dialogue of before from one in which nothing was accepted: its voices can still be changed then.
   *
   * @param {Take | null} before
   */
  #dropUnused(before) {
    const { take } = this;
    if (!take || take === before || take.turns.length) return;
    this.take = before;
    void take.close();
  }

  /** @param {Take} take */
  #listen(take) {
    const mine = () => take === this.take;
    take.on('turn', (turn) => {
      if (!mine()) return;
      if (take.turns[0] === turn && this.#takes.size && !this.#takes.has(turn)) {
        this.#transcript.divide('A new dialogue: the server does not remember what is above.');
      }
      this.#takes.set(turn, take);
      this.#transcript.show(turn, { follow: !this.#editor.focused });
      if (turn.remembered) this.#notices.announce(`Stopped. The dialogue remembers: ${turn.remembered}`);
      this.#show();
    });
    take.on('sound', () => {
      if (this.#askedAtMs) {
        const waitedMs = Math.round(performance.now() - this.#askedAtMs);
        this.#firstSound.textContent = `First sound ${waitedMs} ms after Speak`;
        this.#askedAtMs = 0;
      }
      this.#draw();
    });
    take.on('connection', (connection) => {
      if (mine() && connection === 'reconnecting') {
        const text = 'What has arrived plays on; nothing will be lost.';
        this.#notices.news({ title: 'The connection was lost. Reconnecting…', text }, { lasting: true });
      }
      this.#show();
    });
    take.on('resumed', ({ lostMs }) => {
      const seconds = (lostMs / 1000).toFixed(1);
      const text = `The connection was away for ${seconds} s. Nothing was lost.`;
      this.#notices.news({ title: 'Connected again.', text });
    });
    take.on('finished', ({ turns }) => {
      if (turns.some((turn) => turn.state === 'heard')) this.#notices.announce('The dialogue is spoken.');
      this.#show();
    });
    take.on('problem', (error) => mine() && this.#problem(error));
    take.on('ended', ({ reason }) => mine() && this.#notices.problem(describeEnd(reason)));
  }

  /** @param {unknown} error */
  #problem(error) {
    const words = describe(error);
    // At first nobody did anything wrong.
    if (codeOf(error) === 'unauthorized') this.#access.ask(this.#api.token ? words.title : '');
    else this.#notices.problem(words);
  }

  /** @param {string} id */
  async #added(id) {
    await this.loadVoices();
    this.#cast.use(id);
    this.#notices.news({ title: `The voice ${id} is ready.`, text: '' });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing || document.querySelector('dialog[open]')) return;
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void this.speak();
    } else if (event.key === 'Escape') {
      void this.stop();
    }
  }

  /** @param {'opus' | 'wav'} kind */
  async #save(kind) {
    const player = this.take?.player;
    if (!player) return;
    let blob;
    try {
      blob = await (kind === 'opus' ? player.toOpus() : player.toWav());
    } catch (error) {
      this.#problem(error);
      return;
    }
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `dialogue.${kind}`;
    link.click();
    // Not at once: the browser has yet to read it.
    window.setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  #show() {
    const { take } = this;
    const busy = take?.busy ?? false;
    const open = take !== null && take.connection !== 'ended';
    const begun = take?.turns.some((turn) => turn.index !== null) ?? false;
    this.#dock.show({ busy, sounding: busy || this.#replaying !== null, begun, connecting: this.#connecting });
    this.#cast.lock(open);
    this.#newDialogue.hidden = !this.#takes.size;
    this.#transcript.allowReplay(this.#replaying);
    const shown = this.#connecting ? 'connecting' : (take?.connection ?? 'ended');
    byId('connection', HTMLElement).dataset.state = shown;
    const text = this.#connecting ? 'Connecting…' : take ? CONNECTION_TEXT[take.connection] : READY_TEXT;
    byId('connection-text', HTMLElement).textContent = text;
  }

  /** Follow the sound until there is none. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    const step = (/** @type {number} */ nowMs) => {
      const take = this.#replaying ? this.#takes.get(this.#replaying) : this.take;
      if (take) {
        this.#dock.measure(take.player, nowMs);
        // Looking at the clock may end a turn: who speaks is asked after it.
        const { analyser, playedMs } = take.player;
        const turn = this.#replaying ?? take.speaking;
        if (turn) this.#wave.listen(analyser, turn.speaker, nowMs);
        if (turn && !this.#replaying) this.#transcript.light(turn, playedMs - turn.heardFromMs);
      }
      this.#drawing = this.#replaying !== null || (this.take?.busy ?? false);
      if (this.#drawing) requestAnimationFrame(step);
      else if (take) this.#dock.measure(take.player, nowMs, { last: true });
    };
    requestAnimationFrame(step);
  }
}
