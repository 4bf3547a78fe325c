// Few requests begin in one turn of the event loop; the others follow in the order in which they came.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createHttp1Acceptor } from '../../../proxy/exchange/http1-client.ts';
import { fieldLimitsOf } from '../../../proxy/http2/fields.ts';
import { defaultLimits } from '../../../proxy/limits.ts';
import { createRouteTable } from '../../../proxy/rules/routes.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { createPacer } from '../../../proxy/socket/pacing.ts';
import { createUpstreams } from '../../../proxy/upstream/http1-pool.ts';
import { createHttp2Upstreams } from '../../../proxy/upstream/http2-pool.ts';
import { silentLog } from '../../../src/lib/log.ts';
import {
  answering,
  eventually,
  HOST,
  request,
  routeTo,
  settingsFor,
  startUpstream,
} from '../../support/proxy.ts';
import { tlsEnds } from '../../support/tls-pair.ts';

/** A pacer, and what happened turn by turn: the items that began, and 'begun'. */
function paced() {
  let turn: (number | 'begun')[] = [];
  const pacer = createPacer<number>(
    (item) => turn.push(item),
    () => turn.push('begun'),
  );
  return {
    ask(item: number) {
      if (pacer.admits(item)) turn.push(item);
    },
    /** What has happened since it was last asked. */
    take() {
      const taken = turn;
      turn = [];
      return taken;
    },
  };
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

test('sixteen begin at once, and the others in the turns that follow, in order', async () => {
  const line = paced();
  for (const item of range(0, 40)) line.ask(item);
  assert.deepEqual(line.take(), range(0, 16));
  // This turn has had its sixteen.
  await nextTurn();
  assert.deepEqual(line.take(), []);
  await nextTurn();
  assert.deepEqual(line.take(), [...range(16, 32), 'begun']);
  await nextTurn();
  assert.deepEqual(line.take(), [...range(32, 40), 'begun']);
  await nextTurn();
  assert.deepEqual(line.take(), []);
});

test('a few are never kept waiting, however many turns they come in', async () => {
  const line = paced();
  for (const turn of range(0, 10)) {
    for (const item of range(0, 16)) line.ask(turn * 16 + item);
    assert.deepEqual(line.take(), range(turn * 16, turn * 16 + 16));
    await nextTurn();
    assert.deepEqual(line.take(), []);
  }
});

test('a later one does not pass those in line', async () => {
  const line = paced();
  for (const item of range(0, 18)) line.ask(item);
  await nextTurn();
  line.take();
  line.ask(18);
  assert.deepEqual(line.take(), []);
  await nextTurn();
  assert.deepEqual(line.take(), [16, 17, 18, 'begun']);
});

test('of a crowd eight begin in a turn, and all do in the end', async () => {
  const line = paced();
  for (const item of range(0, 5_000)) line.ask(item);
  const began: number[] = line.take() as number[];
  const turns: number[] = [];
  while (began.length < 5_000) {
    await nextTurn();
    const turn = line.take().filter((item) => item !== 'begun');
    turns.push(turn.length);
    began.push(...turn);
  }
  assert.deepEqual(began, range(0, 5_000));
  assert.ok(
    turns.slice(1, 600).every((count) => count === 8),
    `turns of ${new Set(turns.slice(1, 600))}`,
  );
  assert.equal(Math.max(...turns), 16);
});

test('one that began in turn may stand in line again, behind the others', async () => {
  const began: number[] = [];
  const pacer = createPacer<number>(
    (item) => {
      began.push(item);
      if (item < 100) assert.equal(pacer.admits(item + 100), false);
    },
    () => {},
  );
  for (const item of range(0, 48)) pacer.admits(item);
  for (let turn = 0; turn < 10; turn++) await nextTurn();
  assert.deepEqual(began, [...range(16, 48), ...range(116, 148)]);
});

test('a client that ends while its request is in line is cut off, and its request never asked', async (t) => {
  const seen: string[] = [];
  const upstream = await startUpstream(
    answering((head) => {
      seen.push(head.split(' ')[1]!);
      return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    }),
  );
  const deadlines = createDeadlines();
  const upstreams = createUpstreams({ deadlines });
  const routes = createRouteTable([routeTo(settingsFor(upstream.port))]);
  const acceptor = createHttp1Acceptor({
    routes: () => routes,
    upstreams,
    http2Upstreams: createHttp2Upstreams({ deadlines, upstreams, fieldLimits: fieldLimitsOf(defaultLimits) }),
    localHandlers: {},
    limits: defaultLimits,
    deadlines,
    log: silentLog,
    tunnels: new Set(),
  });
  t.after(async () => {
    acceptor.destroyAll();
    upstreams.close();
    await upstream.close();
  });
  const ends = await tlsEnds(t, 18);
  for (const { socket } of ends) {
    acceptor.accept({
      socket,
      certificateNames: [HOST],
      serverName: HOST,
      clientAddress: '127.0.0.1',
      serverPort: 443,
      clientPort: 40_000,
      trustedClient: false,
    });
  }
  await nextTurn();
  /** As sockets do it, but all in one turn. */
  const ask = (path: string) => {
    for (const { socket } of ends) socket.push(Buffer.from(request(`GET ${path}`)));
  };
  const answered = (times: number) =>
    eventually(() => ends.every(({ received }) => received().split('ok').length === times + 1));
  // So that a connection to the upstream is there for each.
  ask('/first');
  await answered(1);
  const leaving = ends.pop()!;
  const before = leaving.received();
  ask('/second');
  await nextTurn();
  // One of those is left for the next turn, in which this one comes and goes.
  leaving.socket.push(Buffer.from(request('GET /leaving')));
  leaving.socket.push(null);
  await answered(2);
  await eventually(() => leaving.socket.destroyed);
  assert.equal(leaving.received(), before);
  assert.deepEqual(new Set(seen), new Set(['/first', '/second']));
});
