import { byId } from './dom.js';

const KEY = 'theme';
const dark = matchMedia('(prefers-color-scheme: dark)');

/** @returns {'light' | 'dark'} what is shown */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === 'light' || chosen === 'dark' ? chosen : dark.matches ? 'dark' : 'light';
}

/**
 * Wire the switch; without a choice the page follows the system.
 *
 * @param {() => void} onChange called whenever the colours are other ones
 */
export function installTheme(onChange) {
  const button = byId('theme', HTMLButtonElement);
  const kept = read();
  if (kept) document.documentElement.dataset.theme = kept;
  const show = () => {
    const other = theme() === 'dark' ? 'light' : 'dark';
    button.setAttribute('aria-label', `Use ${other} colours`);
    button.title = `Use ${other} colours`;
    onChange();
  };
  button.addEventListener('click', () => {
    const next = theme() === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    write(next);
    show();
  });
  dark.addEventListener('change', show);
  show();
}

/** @returns {'light' | 'dark' | null} */
function read() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === 'light' || kept === 'dark' ? kept : null;
  } catch {
    // Storage may be forbidden to pages; then the choice lasts as long as the page.
    return null;
  }
}

/** @param {string} choice */
function write(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    return;
  }
}
