import { byId } from './dom.js';
import { describe } from './errors.js';
import { Recorder, readable } from './recorder.js';

const MAX_MS = 30_000;

/** The dialog that makes a voice of a recording. */
export class Upload {
  #dialog = byId('voice-dialog', HTMLDialogElement);
  #form = byId('voice-form', HTMLFormElement);
  #id = byId('voice-id', HTMLInputElement);
  #language = byId('voice-language', HTMLInputElement);
  #transcript = byId('voice-transcript', HTMLTextAreaElement);
  #consent = byId('voice-consent', HTMLInputElement);
  #file = byId('voice-file', HTMLInputElement);
  #record = byId('record', HTMLButtonElement);
  #recordText = byId('record-text', HTMLElement);
  #preview = byId('voice-preview', HTMLAudioElement);
  #problem = byId('voice-problem', HTMLElement);
  #save = byId('voice-save', HTMLButtonElement);
  #recorder = new Recorder();
  /** @type {Blob | null} */
  #recording = null;
  #ticking = 0;
  #api;
  #onAdded;

  /**
   * @param {import('./api.js').Api} api
   * @param {(voice: import('./api.js').Voice) => void} onAdded
   */
  constructor(api, onAdded) {
    this.#api = api;
    this.#onAdded = onAdded;
    byId('add-voice', HTMLButtonElement).addEventListener('click', () => this.#open());
    byId('voice-close', HTMLButtonElement).addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('close', () => this.#recorder.stop());
    this.#file.addEventListener('change', () => void this.#choose());
    this.#record.addEventListener('click', () => void this.#toggleRecording());
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#send();
    });
  }

  #open() {
    this.#problem.textContent = '';
    this.#dialog.showModal();
    this.#transcript.focus();
  }

  async #choose() {
    const file = this.#file.files?.[0];
    if (!file) return;
    await this.#guard(async () => this.#take(await readable(file)));
  }

  async #toggleRecording() {
    if (this.#recorder.running) {
      this.#recorder.stop();
      return;
    }
    await this.#guard(async () => {
      const recorded = this.#recorder.record(MAX_MS, () => this.#showRecording(true));
      this.#file.value = '';
      this.#take(await recorded);
    });
    this.#showRecording(false);
  }

  /** @param {boolean} running */
  #showRecording(running) {
    window.clearInterval(this.#ticking);
    let seconds = 0;
    const show = () => {
      this.#recordText.textContent = running ? `Stop recording, ${seconds} s` : 'Record';
      seconds += 1;
    };
    show();
    if (running) this.#ticking = window.setInterval(show, 1000);
    this.#record.dataset.running = String(running);
  }

  /** @param {Blob} recording */
  #take(recording) {
    URL.revokeObjectURL(this.#preview.src);
    this.#recording = recording;
    this.#preview.src = URL.createObjectURL(recording);
    this.#preview.hidden = false;
  }

  async #send() {
    const missing = this.#missing();
    this.#problem.textContent = missing?.text ?? '';
    if (missing) {
      missing.field.focus();
      return;
    }
    const form = new FormData();
    form.set('id', this.#id.value.trim());
    form.set('transcript', this.#transcript.value.trim());
    form.set('language', this.#language.value.trim());
    form.set('consent', String(this.#consent.checked));
    form.set('file', /** @type {Blob} */ (this.#recording), 'recording');
    this.#save.disabled = true;
    this.#save.textContent = 'Listening to it…';
    await this.#guard(async () => {
      const voice = await this.#api.upload(form);
      this.#dialog.close();
      this.#clear();
      this.#onAdded(voice);
    });
    this.#save.disabled = false;
    this.#save.textContent = 'Add the voice';
  }

  /** @returns {{text: string, field: HTMLElement} | null} the first thing that is still to be done */
  #missing() {
    if (!this.#transcript.value.trim()) return { text: 'Write what the recording says.', field: this.#transcript };
    if (!this.#recording) return { text: 'Record something, or choose a file.', field: this.#record };
    if (!/^[a-z0-9_-]{1,64}$/.test(this.#id.value.trim())) {
      return { text: 'Give the voice a short name of a–z, 0–9, _ and -.', field: this.#id };
    }
    if (!this.#language.value.trim()) return { text: 'Say which language it is, such as en.', field: this.#language };
    if (!this.#consent.checked) {
      return { text: "A voice can only be added with its speaker's consent: tick the box.", field: this.#consent };
    }
    return null;
  }

  #clear() {
    this.#form.reset();
    URL.revokeObjectURL(this.#preview.src);
    this.#preview.removeAttribute('src');
    this.#preview.hidden = true;
    this.#recording = null;
  }

  /** @param {() => Promise<void> | void} work */
  async #guard(work) {
    this.#problem.textContent = '';
    try {
      await work();
    } catch (error) {
      const { title, text } = describe(error);
      this.#problem.textContent = `${title} ${text}`;
    }
  }
}
