const BAR_MS = 50;
const BAR_PX = 3;
const STEP_PX = 5;
const MIN_LEVEL = 0.06;
/** Speech at a usual loudness fills most of the height, and what is quiet is still seen. */
const GAIN = 4.5;
const CURVE = 0.75;

/** The live waveform: a bar for each twentieth of a second, in the colour of who was heard. */
export class Wave {
  /** @type {{level: number, speaker: string}[]} the latest last */
  #bars = [];
  #lastMs = 0;
  #peak = 0;
  /** @type {Record<string, string>} */
  #colours = {};
  #samples = new Float32Array(0);

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /**
   * Listen for one frame of the screen.
   *
   * @param {AnalyserNode} analyser
   * @param {string} speaker who is heard
   * @param {number} nowMs
   */
  listen(analyser, speaker, nowMs) {
    if (this.#samples.length !== analyser.fftSize) this.#samples = new Float32Array(analyser.fftSize);
    analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    this.#peak = Math.max(this.#peak, Math.sqrt(sum / this.#samples.length));
    if (nowMs - this.#lastMs < BAR_MS) return;
    this.#bars.push({ level: Math.min(1, (this.#peak * GAIN) ** CURVE), speaker });
    if (this.#bars.length > 2000) this.#bars.splice(0, 1000);
    this.#lastMs = nowMs;
    this.#peak = 0;
    this.draw();
  }

  /** Forget what was heard. */
  clear() {
    this.#bars = [];
    this.draw();
  }

  /** Take the colours anew and draw. */
  recolour() {
    this.#colours = {};
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    const pen = canvas.getContext('2d');
    if (!pen || !width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.scale(ratio, ratio);
    const nPlaces = Math.floor(width / STEP_PX);
    const bars = this.#bars.slice(-nPlaces);
    for (let place = 0; place < nPlaces; place += 1) {
      const bar = bars[place - nPlaces + bars.length];
      const size = Math.max(MIN_LEVEL, bar?.level ?? 0) * height;
      pen.fillStyle = this.#colour(bar && bar.level > MIN_LEVEL ? bar.speaker : '');
      pen.beginPath();
      pen.roundRect(place * STEP_PX, (height - size) / 2, BAR_PX, size, BAR_PX / 2);
      pen.fill();
    }
  }

  /** @param {string} speaker */
  #colour(speaker) {
    this.#colours[speaker] ??= resolved(this.canvas, speaker ? `var(--${speaker.toLowerCase()})` : 'var(--edge)');
    return this.#colours[speaker];
  }
}

/**
 * The colour that a style's value stands for here: a canvas knows no variables.
 *
 * @param {HTMLElement} element
 * @param {string} value
 */
function resolved(element, value) {
  element.style.color = value;
  const { color } = getComputedStyle(element);
  element.style.color = '';
  return color;
}
