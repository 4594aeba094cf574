/** The audio thread's part, block by block, without an audio device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Playout } from '../src/player/playout.js';
import { Ring } from '../src/player/ring.js';

const BLOCK = 128;

/** @param {number} length @param {number} [from] */
const ramp = (length, from = 0) => Float32Array.from({ length }, (_, i) => from + i);

/** @param {number} length */
const ones = (length) => new Float32Array(length).fill(1);

function playout({ startSamples = 0 } = {}) {
  /** @type {any[]} */
  const events = [];
  const player = new Playout((event) => events.push(event));
  player.startSamples = startSamples;
  const render = (blocks = 1) => {
    const out = new Float32Array(blocks * BLOCK);
    for (let i = 0; i < blocks; i += 1) player.render(out.subarray(i * BLOCK, (i + 1) * BLOCK));
    return out;
  };
  return { player, events, render };
}

test('the ring gives back what was written, whatever the sizes, and grows instead of dropping', () => {
  const ring = new Ring();
  let written = 0;
  let read = 0;
  // A small generator, so that sizes are odd and the same every time.
  let dice = 7;
  const roll = (/** @type {number} */ sides) => {
    dice = (dice * 48271) % 2147483647;
    return dice % sides;
  };
  for (let i = 0; i < 3000; i += 1) {
    const length = roll(400);
    ring.write(ramp(length, written));
    written += length;
    const out = new Float32Array(roll(i < 1500 ? 100 : 700));
    const count = ring.read(out);
    for (let j = 0; j < count; j += 1) assert.equal(out[j], read + j);
    read += count;
    assert.equal(ring.length, written - read);
  }
  assert.ok(written > 2 ** 17);
});

test('every sample that came is played once, in order, across turns', () => {
  const { player, events, render } = playout();
  const sent = ramp(BLOCK * 10 + 50, 1);
  player.push(sent.subarray(0, 700), { turnIndex: 0, last: true });
  player.push(sent.subarray(700), { turnIndex: 1, last: true });
  assert.deepEqual(render(11).subarray(0, sent.length), sent);
  assert.equal(player.rendered, sent.length);
  assert.deepEqual(events.map(({ type }) => type), ['playing', 'dry']);
});

test('sound begins when enough is there', () => {
  const { player, render } = playout({ startSamples: 4 * BLOCK });
  player.push(ones(3 * BLOCK), { turnIndex: 0, last: false });
  assert.equal(player.rendered, render(1)[0]);
  player.push(ones(BLOCK), { turnIndex: 0, last: false });
  assert.equal(render(1)[0], 1);
});

test('sound begins with a whole turn, however short, and with a piece that nothing follows', () => {
  const whole = playout({ startSamples: 10 * BLOCK });
  whole.player.push(ones(BLOCK), { turnIndex: 0, last: true });
  assert.deepEqual(whole.render(), ones(BLOCK));
  const ended = playout({ startSamples: 10 * BLOCK });
  ended.player.push(ones(BLOCK), { turnIndex: 0, last: false });
  ended.player.endTurn(0);
  assert.deepEqual(ended.render(), ones(BLOCK));
  const piece = playout({ startSamples: 10 * BLOCK });
  piece.player.push(ones(BLOCK), { turnIndex: 0, last: false });
  assert.deepEqual(piece.render(9), new Float32Array(9 * BLOCK));
  piece.render();
  assert.equal(piece.player.rendered, BLOCK);
});

test('a gap inside a turn is an underrun, a gap between turns is none', () => {
  const { player, events, render } = playout();
  player.push(ones(BLOCK), { turnIndex: 0, last: false });
  render(3);
  player.push(ones(BLOCK), { turnIndex: 0, last: true });
  render(5);
  player.push(ones(BLOCK), { turnIndex: 1, last: false });
  render(5);
  player.endTurn(1);
  player.push(ones(BLOCK), { turnIndex: 2, last: true });
  render(1);
  const underruns = events.filter(({ type }) => type === 'underrun');
  assert.deepEqual(underruns, [{ type: 'underrun', turnIndex: 0, gapSamples: 2 * BLOCK }]);
  assert.equal(player.rendered, 4 * BLOCK);
});

test('sound that breaks off fades out and comes back softly', () => {
  const { player, render } = playout();
  player.push(ones(BLOCK), { turnIndex: 0, last: false });
  const before = render();
  assert.equal(before[BLOCK - 1], 0);
  player.push(ones(2 * BLOCK), { turnIndex: 0, last: true });
  const after = render(2);
  assert.ok(after[0] < 0.1 && after[BLOCK] === 1);
});

test('stop fades for as long as it was told, counts what was heard, and drops the rest', () => {
  const { player, events, render } = playout();
  player.push(ones(100 * BLOCK), { turnIndex: 0, last: true });
  render(2);
  player.stop(480);
  const out = render(5);
  for (let i = 1; i < 480; i += 1) assert.ok(out[i] < out[i - 1]);
  assert.deepEqual(out.subarray(480), new Float32Array(out.length - 480));
  assert.equal(player.rendered, 2 * BLOCK + 480);
  assert.equal(events.at(-1).type, 'stopped');
  assert.equal(player.buffered, 0);
  player.push(ramp(BLOCK, 5), { turnIndex: 1, last: true });
  assert.deepEqual(render(), ramp(BLOCK, 5));
});

test('stop in silence answers at once', () => {
  const { player, events } = playout({ startSamples: 1000 });
  player.stop(480);
  player.push(ones(BLOCK), { turnIndex: 0, last: false });
  player.stop(480);
  assert.deepEqual(events.map(({ type }) => type), ['stopped', 'stopped']);
  assert.equal(player.buffered, 0);
});

test('a fade that is longer than what is there ends with it', () => {
  const { player, events, render } = playout();
  player.push(ones(2 * BLOCK), { turnIndex: 0, last: true });
  render();
  player.stop(100 * BLOCK);
  render(2);
  assert.equal(events.at(-1).type, 'stopped');
  assert.equal(player.rendered, 2 * BLOCK);
});

test('a pause holds the dialogue, and what is stopped in it is not heard any more', () => {
  const { player, render } = playout();
  player.push(ones(10 * BLOCK), { turnIndex: 0, last: true });
  render(2);
  player.pause(true);
  assert.equal(render(4).subarray(BLOCK).some((value) => value !== 0), false);
  player.pause(false);
  render(1);
  player.pause(true);
  player.pause(false);
  player.pause(true);
  render(3);
  // Held and let go again between two blocks: nothing of it is heard.
  player.pause(false);
  player.pause(true);
  const { rendered } = player;
  render(3);
  assert.equal(player.rendered, rendered);
  player.stop(480);
  player.pause(false);
  render(3);
  assert.equal(player.rendered, rendered);
});
