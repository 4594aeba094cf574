/** What is downloaded: Ogg Opus from packets, WAV from samples. The Python tests read it with other programs. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { frameSamples, packetSamples48k } from '../src/client/index.js';
import { Recording } from '../src/player/recording.js';

/** Packets of 80 ms from the file that the Python test wrote: each with two bytes of length before it. */
function packets() {
  const bytes = readFileSync(PACKETS ?? '');
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    found.push(new Uint8Array(bytes.subarray(at + 2, at + 2 + length)));
    at += 2 + length;
  }
  return found;
}

const toc = (/** @type {number} */ config, /** @type {number} */ code) => (config << 3) | code;

test('the length of a packet is read from its first bytes', () => {
  assert.equal(packetSamples48k(Uint8Array.of(toc(3, 0))), 2880);
  assert.equal(packetSamples48k(Uint8Array.of(toc(3, 3), 2)), 5760);
  assert.equal(packetSamples48k(Uint8Array.of(toc(13, 1))), 1920);
  assert.equal(packetSamples48k(Uint8Array.of(toc(31, 2))), 1920);
  assert.equal(frameSamples({ kind: 'opus', payload: Uint8Array.of(toc(31, 3), 4) }, 24000), 1920);
  assert.equal(frameSamples({ kind: 'pcm_s16le', payload: new Uint8Array(320) }, 8000), 160);
  assert.equal(frameSamples({ kind: 'mulaw', payload: new Uint8Array(160) }, 8000), 160);
});

test('what is no packet is refused', () => {
  for (const bytes of [[], [toc(3, 3)], [toc(3, 3), 0], [toc(3, 3), 3]]) {
    assert.throws(() => packetSamples48k(Uint8Array.from(bytes)), { code: 'protocol_error' });
  }
});

/** @param {Uint8Array[]} all */
function recorded(all) {
  const recording = new Recording('opus', 24000);
  all.forEach((payload, i) => recording.add({ payload, samples: 1920, turnIndex: i >> 4 }));
  return recording;
}

const { FOLDER = '', PACKETS } = process.env;
const skip = PACKETS === undefined && 'the Python tests give it packets';

test('a recording becomes an Ogg Opus file', { skip }, async () => {
  writeFileSync(`${FOLDER}/out.opus`, Buffer.from(await recorded(packets()).toOpus().arrayBuffer()));
  const empty = new Recording('opus', 24000);
  writeFileSync(`${FOLDER}/empty.opus`, Buffer.from(await empty.toOpus().arrayBuffer()));
});

const bareSkip = skip || (await bare());

test('a recording becomes a WAV file, and one turn can be heard again', { skip: bareSkip }, async () => {
  const { createDecoder } = await import('../src/player/decoding.js');
  /** @returns {Promise<import('../src/player/recording.js').Decode>} */
  const fresh = async () => {
    const decoder = await createDecoder('opus', 24000);
    return async (block) => {
      const pcm = new Float32Array(block.length * 1920);
      block.forEach(({ payload, samples }, i) => pcm.set(decoder.decode(payload, samples), i * 1920));
      return pcm;
    };
  };
  const recording = recorded(packets());
  writeFileSync(`${FOLDER}/out.wav`, Buffer.from(await (await recording.toWav(await fresh())).arrayBuffer()));
  const turn = await recording.turn(1, await fresh());
  assert.equal(turn?.length, 16 * 1920);
  writeFileSync(`${FOLDER}/turn.f32`, new Uint8Array(/** @type {any} */ (turn).slice().buffer));
  assert.equal(await recording.turn(999, await fresh()), null);
});

async function bare() {
  return import('opus-decoder').then(() => false, () => 'opus-decoder is not installed (npm install)');
}
