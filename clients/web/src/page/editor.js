import { byId, make } from './dom.js';
import { EXAMPLES, speakersIn, tagsIn } from './script.js';

/** The script's field: tags are marked in their speakers' colours, and the field grows with its text. */
export class Editor {
  #field = byId('script', HTMLTextAreaElement);
  #marks = byId('script-marks', HTMLDivElement);
  #count = byId('script-count', HTMLElement);
  #onChange;

  /** @param {(speakers: string[]) => void} onChange told who speaks, at once and after each change */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#field.addEventListener('input', () => this.#changed());
    const examples = byId('examples', HTMLElement);
    for (const { name, script } of EXAMPLES) {
      const button = make('button', 'quiet', name);
      button.type = 'button';
      button.addEventListener('click', () => {
        this.text = script;
        this.focus();
      });
      examples.append(button);
    }
    this.text = this.#field.value || EXAMPLES[0].script;
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#changed();
  }

  get focused() {
    return document.activeElement === this.#field;
  }

  focus() {
    this.#field.focus();
  }

  #changed() {
    const text = this.text;
    /** @type {Node[]} */
    const pieces = [];
    let end = 0;
    for (const tag of tagsIn(text)) {
      const mark = make('mark', '', text.slice(tag.start, tag.end));
      mark.dataset.speaker = tag.speaker;
      pieces.push(document.createTextNode(text.slice(end, tag.start)), mark);
      end = tag.end;
    }
    // A line feed at the end has no height of its own in a block, but has in a field.
    pieces.push(document.createTextNode(`${text.slice(end)}\u200b`));
    this.#marks.replaceChildren(...pieces);
    this.#count.textContent = text ? `${[...text].length} characters.` : '';
    this.#onChange(speakersIn(text));
  }
}
