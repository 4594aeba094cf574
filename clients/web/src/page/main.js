import { Page } from './page.js';
import { installTheme } from './theme.js';

const page = new Page();
installTheme(() => page.recolour());
void page.loadVoices();

// For the browser's console, and for programs that drive the page.
Object.assign(globalThis, { dialoguePage: page });
