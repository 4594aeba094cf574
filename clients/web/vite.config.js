import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const ROOT = fileURLToPath(new URL('.', import.meta.url));

/** Paths, relative to this folder and in order, of everything that the build is made from. */
export function sources() {
  const below = ['public', 'src']
    .flatMap((folder) => readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length).replaceAll('\\', '/'));
  return ['index.html', 'package.json', 'package-lock.json', 'vite.config.js', ...below].sort();
}

/** Leaves `source.sha256` beside what was built, as `sha256sum` writes it: a stale build is noticed without npm. */
function stamp() {
  let folder = '';
  return {
    name: 'stamp',
    apply: /** @type {'build'} */ ('build'),
    /** @param {{build: {outDir: string}, root: string}} config */
    configResolved(config) {
      folder = resolve(config.root, config.build.outDir);
    },
    closeBundle() {
      const line = (/** @type {string} */ path) =>
        `${createHash('sha256').update(readFileSync(join(ROOT, path))).digest('hex')}  ${path}\n`;
      writeFileSync(join(folder, 'source.sha256'), sources().map(line).join(''));
    },
  };
}

export default defineConfig({
  root: ROOT,
  // Relative, so that the page works under any path of a server.
  base: './',
  plugins: [stamp()],
  build: {
    outDir: '../../streamer/assets/web',
    emptyOutDir: true,
    target: 'es2022',
    // The page's content policy allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { index: 'index.html', client: 'src/client/index.js', player: 'src/player/index.js' },
      // Client and player keep their exports and have names of their own, for other pages to import.
      preserveEntrySignatures: 'strict',
      output: { entryFileNames: 'assets/[name]-[hash].js', chunkFileNames: 'assets/part-[name]-[hash].js' },
    },
  },
  worker: { format: 'es' },
  server: { proxy: { '/v1': { target: 'http://127.0.0.1:8000', ws: true } } },
});
