/** What a session does, against a real server. */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { connect, DialogueError } from '../src/client/index.js';
import { GREEDY, heard, next, opened, SCRIPT, SENTENCE, servers, skip, token } from './harness.js';

test('a script is spoken turn by turn', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  /** @type {string[]} */
  const story = [];
  for (const type of /** @type {const} */ (['turn.started', 'audio', 'turn.completed'])) {
    session.on(type, (event) => story.at(-1) !== `${type} ${event.turn}` && story.push(`${type} ${event.turn}`));
  }
  let bytes = 0;
  let frames = 0;
  session.on('audio', ({ payload, kind }) => {
    assert.equal(kind, 'pcm_s16le');
    bytes += payload.length;
  });
  session.on('turn.completed', (event) => (frames += event.frames));
  const idle = next(session, 'session.idle');
  const { script, turns } = await session.say(SCRIPT);
  assert.deepEqual(turns.map(({ speaker, text }) => [speaker, text]), [['S1', SENTENCE], ['S2', SENTENCE]]);
  await idle;
  const stages = ['turn.started', 'audio', 'turn.completed'];
  const parts = turns.flatMap(({ turn }) => stages.map((type) => `${type} ${turn}`));
  assert.deepEqual(story, parts);
  assert.equal(turns[0].turn, `${script}.1`);
  assert.equal(bytes, frames * 1920 * 2);
  assert.ok(frames > 2);
  assert.equal(session.ready.audio.sample_rate, 24000);
  assert.ok((await session.ping()) > 0);
});

test('text in pieces is one turn, and pieces after its end come to nothing', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  const log = heard(session);
  assert.throws(() => session.append('late', 'Who says so?'), { code: 'invalid_message' });
  assert.equal(session.append('live', '', { speaker: 'S2' }), false);
  assert.equal(session.append('live', 'It rains, ', { speaker: 'S2' }), true);
  const started = await next(session, 'turn.started');
  assert.equal(session.append('live', 'it pours.', { speaker: 'S2' }), true);
  const completed = next(session, 'turn.completed');
  assert.deepEqual([session.commit('live'), session.commit('live')], [true, false]);
  assert.deepEqual([started.speaker, (await completed).reason !== 'error'], ['S2', true]);
  assert.equal(session.append('live', 'And more.', { speaker: 'S2' }), false);
  const after = next(session, 'turn.completed');
  const second = session.createTurn({ speaker: 'S1', text: SENTENCE });
  assert.equal((await after).turn, second);
  assert.equal(log.filter(({ type }) => type === 'error').length, 0);
});

test('pieces that cross their turn\'s end raise no error', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  const log = heard(session);
  session.append('live', 'It rains, ', { speaker: 'S1' });
  await next(session, 'turn.started');
  session.append('live', '[S3] no tags here. ');
  const refusal = next(session, 'error');
  // The server has ended the turn by the first of them; these are on their way already.
  session.append('live', 'Still on it. ');
  session.commit('live');
  assert.equal((await refusal).code, 'invalid_script');
  await session.ping();
  assert.equal(log.filter(({ type }) => type === 'error').length, 1);
});

test('what was cancelled is marked, what comes after it is not', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  /** @type {Map<string, boolean[]>} */
  const marks = new Map();
  session.on('audio', ({ turn, cancelled }) => marks.set(turn, [...(marks.get(turn) ?? []), cancelled]));
  const turn = session.createTurn({ speaker: 'S1', text: SENTENCE });
  const asked = session.say(SCRIPT);
  await next(session, 'audio');
  const [completed, truncated] = [next(session, 'turn.completed'), next(session, 'turn.truncated')];
  session.cancel({ playedMs: 80.9 });
  const later = session.createTurn({ speaker: 'S2', text: SENTENCE });
  assert.deepEqual([(await completed).turn, (await truncated).heard_ms], [turn, 80]);
  const { turns } = await asked;
  await next(session, 'turn.completed', (event) => event.turn === later);
  assert.ok(marks.get(later)?.every((cancelled) => !cancelled));
  assert.equal(marks.get(turn)?.[0], false);
  for (const line of turns) assert.ok((marks.get(line.turn) ?? []).every((cancelled) => cancelled));
});

test('what the server refuses is told to who asked', { skip }, async (t) => {
  await assert.rejects(connect(servers.plain, { ...GREEDY, voices: { S1: 'nobody' } }), { code: 'unknown_voice' });
  await assert.rejects(connect(servers.plain, { seed: 0.5 }), { code: 'invalid_message' });
  const session = await opened(t, servers.plain);
  await assert.rejects(session.say('[S9] Too many.'), { code: 'too_many_speakers', name: 'DialogueError' });
  await assert.rejects(session.say(''), { code: 'invalid_message' });
  const sampling = /** @type {any} */ ({ bogus: 1 });
  await assert.rejects(session.say(SCRIPT, { sampling }), { code: 'invalid_message' });
  await assert.rejects(session.say(SCRIPT, { script: 'no spaces' }), { code: 'invalid_message' });
  assert.equal((await session.say('Half a pair \ud83d.')).turns[0].text, 'Half a pair.');
  const refused = next(session, 'error');
  const turn = session.createTurn({ speaker: 'S1', text: '?!' });
  assert.deepEqual([(await refused).code, (await refused).turn], ['no_speech', turn]);
  const huge = 'x'.repeat(session.ready.limits.max_message_bytes);
  assert.throws(() => session.createTurn({ speaker: 'S1', text: huge }), { code: 'message_too_large' });
  assert.throws(() => session.played(NaN), { code: 'invalid_message' });
  const twice = session.say(SCRIPT, { script: 'one' });
  await assert.rejects(session.say(SCRIPT, { script: 'one' }), { code: 'duplicate_turn' });
  await twice;
});

test('a session that is closed says so once, and takes nothing more', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  /** @type {string[]} */
  const ends = [];
  session.on('closed', ({ reason }) => ends.push(reason));
  session.on('lost', ({ code }) => ends.push(code));
  const asked = session.ping();
  await Promise.all([asked, session.close(), session.close()]);
  await session.close();
  assert.deepEqual(ends, ['closed by the client']);
  assert.equal(session.state, 'ended');
  session.cancel();
  session.played(100);
  await assert.rejects(session.say(SCRIPT), { code: 'closed' });
  await assert.rejects(session.ping(), { code: 'closed' });
  assert.throws(() => session.createTurn({ speaker: 'S1', text: SENTENCE }), DialogueError);
});

test('a listener that was taken away hears nothing', { skip }, async (t) => {
  const session = await opened(t, servers.plain);
  let calls = 0;
  const off = session.on('script.accepted', () => (calls += 1));
  await session.say(SCRIPT);
  off();
  await session.say(SCRIPT);
  assert.equal(calls, 1);
});

test('who may not connect learns why', { skip }, async (t) => {
  await assert.rejects(connect(servers.locked, GREEDY), { code: 'unauthorized', final: true });
  await assert.rejects(connect(servers.locked, { ...GREEDY, token: 'wrong' }), { code: 'unauthorized' });
  const session = await opened(t, servers.locked, { token: async () => token });
  assert.ok((await session.say(SCRIPT)).turns.length);
});

test('an address that leads nowhere is told from one that is none', { skip }, async () => {
  for (const address of ['', 'ftp://here', 'ws://', 'ws://user@here', 'http://exa mple']) {
    await assert.rejects(connect(address), { code: 'invalid_address' });
  }
  const taken = createServer((socket) => socket.destroy());
  await new Promise((resolve) => taken.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (taken.address());
  await assert.rejects(connect(`127.0.0.1:${port}`), { code: 'connection_failed', final: false });
  await new Promise((resolve) => taken.close(resolve));
  await assert.rejects(connect(`http://127.0.0.1:${port}/`), { code: 'connection_failed' });
  const page = servers.plain.replace('/v1/dialogue', '/healthz').replace('ws:', 'http:');
  await assert.rejects(connect(page), { code: 'connection_failed', final: true });
});

test('the package ws will do for a WebSocket', { skip: skip || (await withoutWs()) }, async (t) => {
  const { WebSocket } = await import('ws');
  const session = await opened(t, servers.plain, { WebSocket });
  const frame = next(session, 'audio');
  await session.say(SCRIPT);
  assert.ok((await frame).payload.length > 0);
});

async function withoutWs() {
  return import('ws').then(() => false, () => 'ws is not installed (npm install)');
}
