/** Wires that break: everything arrives once and in order all the same. One test at a time, as there is one wire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/client/index.js';
import { GREEDY, heard, next, opened, QUICK, said, SCRIPT, SENTENCE, servers, skip, wire } from './harness.js';

/** Numbers that look like chance and are the same every time. */
function dice(seed = 11) {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

test('random cuts lose nothing and repeat nothing', { skip }, async (t) => {
  const random = dice();
  const session = await opened(t, servers.proxy, { settings: { ...QUICK, random } });
  await said();
  const log = heard(session);
  let cuts = 0;
  let resumed = 0;
  session.on('audio', () => {
    if (random() > 0.3) return;
    cuts += 1;
    void wire(random() < 0.5 ? 'cut' : `cut_after?down=${Math.ceil(random() * 3000)}`);
  });
  session.on('resumed', () => (resumed += 1));
  for (let round = 0; round < 3; round += 1) {
    const last = next(session, 'turn.completed', ({ turn }) => turn === `script${round}.2`);
    session.createTurn({ speaker: 'S2', text: SENTENCE });
    await session.say(SCRIPT, { script: `script${round}` });
    session.played(round);
    await last;
  }
  await wire('mend');
  await session.close();
  assert.ok(cuts > 5 && resumed > 3, `${cuts} cuts, ${resumed} resumed`);
  const told = await said();
  // One by one: what differs first is what one wants to see.
  told.forEach((message, i) => assert.deepEqual(log[i], message));
  assert.equal(log.length, told.length);
});

test('what is said without a connection arrives with the next', { skip }, async (t) => {
  const session = await opened(t, servers.proxy);
  const tries = next(session, 'reconnecting', ({ attempt }) => attempt === 3);
  await wire('refuse?n=6');
  await wire('cut');
  const { reason } = await tries;
  assert.match(reason, /./);
  assert.equal(session.state, 'reconnecting');
  const log = heard(session);
  const [asked, pinged] = [session.say(SCRIPT), session.ping()];
  const idle = next(session, 'session.idle');
  assert.equal((await asked).turns.length, 2);
  assert.ok((await pinged) > 0);
  await idle;
  assert.equal(log.filter(({ type }) => type === 'turn.completed').length, 2);
  assert.equal(session.state, 'open');
});

test('a server that falls silent is noticed, and left for a new connection', { skip }, async (t) => {
  const session = await opened(t, servers.proxy, { settings: { ...QUICK, heartbeatMs: 100 } });
  await wire('drop');
  const { reason } = await next(session, 'reconnecting');
  assert.match(reason, /nothing was heard/);
  await wire('mend');
  await session.ping();
  assert.equal(session.state, 'open');
});

test('a session that the server does not keep is lost, and everybody who waits is told', { skip }, async (t) => {
  const session = await opened(t, servers.impatient);
  await wire('refuse?n=1000');
  const lost = next(session, 'lost');
  const gone = next(session, 'reconnecting');
  await wire('cut');
  await gone;
  // Both wait for a connection that does not come.
  const [asked, pinged] = [session.say(SCRIPT), session.ping()];
  const refusals = Promise.allSettled([asked, pinged]);
  assert.ok(['connection_lost', 'resume_failed'].includes((await lost).code));
  await wire('mend');
  for (const refusal of await refusals) assert.equal(/** @type {any} */ (refusal).reason.code, (await lost).code);
  assert.equal(session.state, 'ended');
  await assert.rejects(session.say(SCRIPT), { code: (await lost).code });
});

test('without resume, a cut is the end', { skip }, async (t) => {
  const session = await opened(t, servers.proxy, { resume: false });
  const lost = next(session, 'lost');
  await wire('cut');
  assert.equal((await lost).code, 'connection_lost');
});

test('a session that is closed while its connection is lost ends at once', { skip }, async () => {
  const session = await connect(servers.proxy, { ...GREEDY, settings: { ...QUICK, backoffBaseMs: 60000 } });
  await wire('refuse?n=1');
  const waiting = next(session, 'reconnecting', ({ attempt }) => attempt === 2);
  await wire('cut');
  await waiting;
  const closed = next(session, 'closed');
  await session.close();
  assert.equal((await closed).reason, 'closed by the client');
  await wire('mend');
});
