/** What the client knows of its turns, message by message: the crossings that a fast server rarely shows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '../src/client/turns.js';

/** @param {string} turn @param {number} index */
const started = (turn, index) => ({ type: 'turn.started', turn, index });
/** @param {string} turn @param {number} index */
const completed = (turn, index) => ({ type: 'turn.completed', turn, index });
/** @param {string} code @param {string | null} turn */
const error = (code, turn) => ({ type: 'error', code, turn, message: code });
/** @param {string} script */
const accepted = (script) => ({
  type: 'script.accepted',
  script,
  turns: [1, 2].map((number) => ({ turn: `${script}.${number}`, speaker: 'S1', text: 'Hello.' })),
});

test('frames of what was cancelled are marked, also of a script that was not answered yet', () => {
  const turns = new Turns();
  turns.add('first');
  turns.note(started('first', 0));
  void turns.askScript('asked');
  assert.equal(turns.ofFrame(0).cancelled, false);
  turns.cancel(null);
  void turns.askScript('later');
  const answers = [accepted('asked'), accepted('later'), started('asked.1', 1), started('later.1', 2)];
  answers.forEach((each) => turns.note(each));
  assert.deepEqual([0, 1, 2].map((index) => turns.ofFrame(index).cancelled), [true, true, false]);
  assert.deepEqual(turns.ofFrame(1), { turn: 'asked.1', cancelled: true });
});

test('one turn is cancelled without the others', () => {
  const turns = new Turns();
  ['one', 'two'].forEach((turn, index) => {
    turns.add(turn);
    turns.note(started(turn, index));
  });
  turns.cancel('one');
  assert.deepEqual([0, 1].map((index) => turns.ofFrame(index).cancelled), [true, false]);
});

test('audio of a turn that is not being spoken is an error', () => {
  const turns = new Turns();
  turns.note(started('one', 0));
  turns.note(completed('one', 0));
  assert.throws(() => turns.ofFrame(0), { code: 'protocol_error' });
});

test('answers to text that crossed its turn\'s end mean nothing, others do', () => {
  const turns = new Turns();
  turns.add('live', { writing: true });
  assert.equal(turns.takesText('live'), true);
  turns.note(completed('live', 0));
  assert.deepEqual([turns.takesText('live'), turns.isOver('live')], [false, true]);
  assert.equal(turns.note(error('duplicate_turn', 'live')), true);
  assert.equal(turns.note(error('unknown_turn', 'live')), true);
  assert.equal(turns.note(error('unknown_turn', 'never')), false);
  turns.add('whole');
  turns.note(completed('whole', 1));
  assert.equal(turns.note(error('duplicate_turn', 'whole')), false);
});

test('a refused turn takes no more text but can be committed; a piece that was too long is only left out', () => {
  const turns = new Turns();
  turns.add('long', { writing: true });
  turns.note(error('text_too_long', 'long'));
  assert.equal(turns.takesText('long'), true);
  turns.note(error('queue_full', 'long'));
  assert.deepEqual([turns.takesText('long'), turns.isWriting('long')], [false, true]);
});

test('a script is answered once, by its own error or by the end of the session', async () => {
  const turns = new Turns();
  const [refused, lost] = [turns.askScript('a'), turns.askScript('b')];
  turns.note(error('queue_full', 'a'));
  turns.note(error('queue_full', null));
  assert.deepEqual([turns.asked('a'), turns.asked('b')], [false, true]);
  await assert.rejects(refused, { code: 'queue_full' });
  turns.fail(/** @type {any} */ (Object.assign(new Error('gone'), { code: 'connection_lost' })));
  await assert.rejects(lost, { code: 'connection_lost' });
});
