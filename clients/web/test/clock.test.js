/** The playback clock and the buffer's measure: pure counting, fed by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PlaybackClock } from '../src/client/index.js';
import { AdaptiveBuffer } from '../src/player/adaptive.js';

const RATE = 24000;
const FRAME = 1920;
const frame = (/** @type {number} */ turnIndex, last = false, samples = FRAME) => ({ turnIndex, samples, last });
const names = (/** @type {import('../src/client/clock.js').ClockEvent[]} */ events) =>
  events.map((event) => (event.type === 'drained' ? 'drained' : `${event.type} ${event.turnIndex}`));

test('turns begin and end when their audio is heard, not when it comes', () => {
  const clock = new PlaybackClock(RATE);
  [frame(0), frame(0, true), frame(1), frame(1, true, 960)].forEach((each) => clock.push(each));
  assert.equal(clock.bufferedMs, 280);
  assert.deepEqual(clock.advance(0), []);
  assert.deepEqual(clock.advance(1), [{ type: 'turn', turnIndex: 0, atMs: 0 }]);
  assert.deepEqual(clock.advance(2 * FRAME), [{ type: 'turnend', turnIndex: 0, atMs: 160 }]);
  assert.equal(clock.turnIndex, 0);
  assert.deepEqual(clock.advance(2 * FRAME + 1), [{ type: 'turn', turnIndex: 1, atMs: 160 }]);
  assert.deepEqual([clock.framesPlayed, clock.turnIndex], [2, 1]);
  assert.deepEqual(names(clock.advance(10 * FRAME)), ['turnend 1', 'drained']);
  assert.deepEqual([clock.playedMs, clock.bufferedMs, clock.framesPlayed], [280, 0, 4]);
});

test('one step over many turns tells all of them in order, and time does not go back', () => {
  const clock = new PlaybackClock(RATE);
  [0, 1, 2].forEach((turn) => clock.push(frame(turn, true)));
  const all = ['turn 0', 'turnend 0', 'turn 1', 'turnend 1', 'turn 2', 'turnend 2', 'drained'];
  assert.deepEqual(names(clock.advance(3 * FRAME)), all);
  assert.deepEqual(clock.advance(FRAME), []);
  assert.equal(clock.playedMs, 240);
});

test('a turn whose last frame does not say so ends when the server does', () => {
  const early = new PlaybackClock(RATE);
  early.push(frame(0));
  assert.deepEqual(early.endTurn(0), []);
  assert.deepEqual(names(early.advance(FRAME)), ['turn 0', 'turnend 0', 'drained']);
  const late = new PlaybackClock(RATE);
  late.push(frame(0));
  assert.deepEqual(names(late.advance(FRAME)), ['turn 0']);
  assert.deepEqual(names(late.endTurn(0)), ['turnend 0', 'drained']);
  assert.deepEqual(late.endTurn(0), []);
  late.push(frame(1, true));
  assert.deepEqual(late.endTurn(1), []);
  assert.deepEqual(names(late.advance(2 * FRAME)), ['turn 1', 'turnend 1', 'drained']);
});

test('what is cut is not heard, and what comes next is heard next', () => {
  const clock = new PlaybackClock(RATE);
  [frame(0), frame(0, true), frame(1, true)].forEach((each) => clock.push(each));
  assert.deepEqual(names(clock.cut(FRAME + 100)), ['turn 0', 'drained']);
  assert.deepEqual([clock.bufferedMs, clock.framesPlayed], [0, 1]);
  clock.push(frame(2, true));
  assert.deepEqual(names(clock.advance(FRAME + 100)), []);
  assert.deepEqual(names(clock.advance(2 * FRAME + 100)), ['turn 2', 'turnend 2', 'drained']);
  assert.deepEqual(clock.cut(99 * FRAME), []);
});

test('audio that comes faster than it is heard needs no more than the least', () => {
  const buffer = new AdaptiveBuffer({ frameMs: 80, targetMs: 120 });
  for (let i = 0; i < 500; i += 1) buffer.arrived(i * 20, 80);
  assert.equal(buffer.startMs, 120);
});

test('the buffer grows to what late audio would have needed, and comes down in calm', () => {
  const buffer = new AdaptiveBuffer({ frameMs: 80, targetMs: 120 });
  for (let i = 0; i < 20; i += 1) buffer.arrived(i * 80 + (i === 10 ? 250 : 0), 80);
  // 250 ms late, and one frame more.
  assert.equal(buffer.startMs, 330);
  buffer.drained();
  assert.equal(buffer.startMs, 330);
  for (let stretch = 0; stretch < 10; stretch += 1) {
    buffer.arrived(10000 + stretch, 80);
    buffer.drained();
  }
  assert.equal(buffer.startMs, 120);
});

test('silence between stretches is nobody being late', () => {
  const buffer = new AdaptiveBuffer({ frameMs: 80, targetMs: 120 });
  buffer.arrived(0, 80);
  buffer.drained();
  buffer.arrived(60000, 80);
  assert.equal(buffer.startMs, 120);
});

test('each underrun makes the buffer grow, to a limit', () => {
  const buffer = new AdaptiveBuffer({ frameMs: 80, targetMs: 120 });
  buffer.arrived(0, 80);
  buffer.underrun();
  assert.equal(buffer.startMs, 180);
  for (let i = 0; i < 20; i += 1) buffer.underrun();
  assert.equal(buffer.startMs, 1000);
});
