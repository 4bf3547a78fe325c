// One answer whatever is spoken: each situation from clients of HTTP/1.1 and HTTP/2 to upstreams of HTTP/1.1 and HTTP/2.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MOST_REFUSALS, REPLAY_BYTES } from '../../../proxy/exchange/retry.ts';
import type { LocalHandler } from '../../../src/lib/local-handler.ts';
import {
  type Answer,
  type Ask,
  type Client,
  join,
  type Pairing,
  pairings,
  type Script,
  type Served,
  type Serving,
  serve,
  type Way,
} from '../../support/pairings.ts';
import { eventually, type Ingress } from '../../support/proxy.ts';

interface Place {
  readonly ingress: Ingress;
  readonly serving: Serving;
}

interface Situation {
  readonly title: string;
  /** What the upstream does; by default it takes the whole request and answers 200. */
  readonly upstream?: Script;
  readonly way?: Way;
  readonly ask?: Ask;
  /** Instead of `ask`: more than one request. */
  readonly asks?: (client: Client, place: Place) => Promise<Answer>;
  readonly expect: Partial<Answer> | ((answer: Answer, seen: readonly Served[], pairing: Pairing) => void);
  /** How many requests the upstream gets. */
  readonly requests?: number;
  /** Where it cannot happen at all, and why. */
  readonly only?: (pairing: Pairing) => boolean;
}

const ok: Script = (served) => void served.body.then(() => served.reply(200, 'ok'));
const POST = { method: 'POST', body: 'hello' } as const;
const overHttp2 = ({ upstream }: Pairing) => upstream === 'h2c';

const local: LocalHandler = {
  handle: ({ method, path }) => ({ status: 200, headers: {}, body: Buffer.from(`${method} ${path}`) }),
};
const limited: Way = {
  options: {
    limits: { maxBodyBytes: 10 },
    localPaths: [{ path: '/local', answeredBy: 'local' }],
    localHandlers: { local },
  },
};

function inTurn(...scripts: readonly Script[]): Script {
  return (served) => (scripts[served.index] ?? ok)(served);
}

/** A first request that leaves a connection to be used again. */
const afterAnother =
  (ask: Ask) =>
  async (client: Client): Promise<Answer> => {
    assert.equal((await client.ask()).status, 200);
    return client.ask(ask);
  };

const afterBody =
  (act: (served: Served) => void): Script =>
  (served) =>
    void served.body.then(() => act(served));
const dies = (served: Served) => served.cut();

const checks: readonly Situation[] = [
  {
    title: 'a request that is served',
    ask: POST,
    expect: { status: 200, body: 'ok', cut: false },
    requests: 1,
  },
  {
    title: 'a host that the certificate does not cover: 421',
    ask: { host: 'elsewhere.example' },
    expect: { status: 421 },
    requests: 0,
  },
  {
    title: 'a host that is malformed: 400, before it is said that it is not ours',
    ask: { host: 'a..-' },
    expect: { status: 400 },
    requests: 0,
  },
  {
    title: 'a host without a route: 404',
    ask: { host: 'other.example.com' },
    expect: { status: 404 },
    requests: 0,
  },
  { title: 'TRACE: 405', ask: { method: 'TRACE' }, expect: { status: 405 }, requests: 0 },
  {
    title: 'TRACE to a host that is not ours: 405 as well',
    ask: { method: 'TRACE', host: 'elsewhere.example' },
    expect: { status: 405 },
    requests: 0,
  },
  {
    title: 'too large for a host that is not ours: 421',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(11), host: 'elsewhere.example' },
    expect: { status: 421 },
    requests: 0,
  },
  {
    title: 'too large for a host without a route: 413',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(11), host: 'other.example.com' },
    expect: { status: 413 },
    requests: 0,
  },
  {
    title: 'too large for what is answered here: 413',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(11), path: '/local/a' },
    expect: { status: 413 },
    requests: 0,
  },
  {
    title: 'too large by its length: 413',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(11) },
    expect: { status: 413 },
    requests: 0,
  },
  {
    title: 'too large by count: 413',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(11), chunked: true },
    expect: { status: 413 },
  },
  {
    title: 'as large as is allowed',
    way: limited,
    ask: { ...POST, body: 'x'.repeat(10) },
    expect: { status: 200 },
    requests: 1,
  },
  {
    title: 'what is answered here, with a body in the request',
    way: limited,
    ask: { ...POST, path: '/local/a?b=c' },
    expect: { status: 200, body: 'POST /local/a', cut: false },
    requests: 0,
  },
  {
    title: 'what is answered here, for a host without a route',
    way: limited,
    ask: { path: '/local/a', host: 'other.example.com' },
    expect: { status: 200, body: 'GET /local/a', cut: false },
    requests: 0,
  },
  {
    title: 'what is answered here, but not for a host that is not ours',
    way: limited,
    ask: { path: '/local/a', host: 'elsewhere.example' },
    expect: { status: 421 },
    requests: 0,
  },
  {
    title: 'an expectation that nobody knows: 417',
    ask: { headers: { expect: '42' } },
    expect: { status: 417 },
    requests: 0,
  },
  {
    title: 'OPTIONS *: forwarded as it is',
    ask: { method: 'OPTIONS', path: '*' },
    expect: (answer, [served]) => assert.deepEqual([answer.status, served!.path], [200, '*']),
    requests: 1,
  },
];

const retries: readonly Situation[] = [
  {
    title: 'GET on a fresh connection that dies is sent once more',
    upstream: inTurn(dies),
    expect: { status: 200, cut: false },
    requests: 2,
  },
  {
    title: 'GET on connections that all die is sent once more, and no third time',
    upstream: dies,
    expect: { status: 502 },
    requests: 2,
  },
  {
    title: 'GET on a connection that was used before and dies is sent once more',
    upstream: inTurn(ok, dies),
    asks: afterAnother({}),
    expect: { status: 200 },
    requests: 3,
  },
  {
    title: 'PUT with a body on a connection that was used before is sent once more, whole',
    upstream: inTurn(ok, afterBody(dies)),
    asks: afterAnother({ method: 'PUT', body: 'hello' }),
    expect: async (answer, seen) => {
      assert.equal(answer.status, 200);
      assert.equal(await seen[2]!.body, 'hello');
    },
    requests: 3,
  },
  {
    title: 'PUT in chunks, with trailers, is sent once more, whole',
    upstream: inTurn(afterBody(dies)),
    ask: { method: 'PUT', body: 'hello', trailers: { 'x-sum': '1' } },
    expect: async (answer, seen) => {
      assert.equal(answer.status, 200);
      assert.equal(await seen[1]!.body, 'hello');
      assert.equal(seen[1]!.trailers()['x-sum'], '1');
    },
    requests: 2,
  },
  {
    title: 'PUT of as many bytes as are kept is sent once more',
    upstream: inTurn(afterBody(dies)),
    ask: { method: 'PUT', body: 'x'.repeat(REPLAY_BYTES) },
    expect: async (answer, seen) => {
      assert.equal(answer.status, 200);
      assert.equal((await seen[1]!.body).length, REPLAY_BYTES);
    },
    requests: 2,
  },
  {
    title: 'PUT of one byte more is not',
    upstream: inTurn(afterBody(dies)),
    ask: { method: 'PUT', body: 'x'.repeat(REPLAY_BYTES + 1) },
    expect: { status: 502 },
    requests: 1,
  },
  {
    title: 'PUT of as many bytes as are kept, in chunks',
    upstream: inTurn(afterBody(dies)),
    ask: { method: 'PUT', body: 'x'.repeat(REPLAY_BYTES), chunked: true },
    expect: { status: 200 },
    requests: 2,
  },
  {
    title: 'POST on a connection that dies is not sent again',
    upstream: inTurn(afterBody(dies)),
    ask: POST,
    expect: { status: 502 },
    requests: 1,
  },
  {
    title: 'POST on a connection that was used before and dies is not sent again',
    upstream: inTurn(ok, afterBody(dies)),
    asks: afterAnother(POST),
    expect: { status: 502 },
    requests: 2,
  },
  {
    title: 'GET that had an interim reply is not sent again',
    upstream: inTurn((served) => {
      served.interim(103);
      setTimeout(() => served.cut(), 50);
    }),
    expect: { status: 502, interims: [103] },
    requests: 1,
  },
  {
    title: 'POST that was refused unbegun is sent again, whole',
    only: overHttp2,
    upstream: inTurn(afterBody((served) => served.refuse())),
    ask: POST,
    expect: async (answer, seen) => {
      assert.equal(answer.status, 200);
      assert.equal(await seen[1]!.body, 'hello');
    },
    requests: 2,
  },
  {
    title: 'POST that was refused unbegun while its body was on its way is sent again, whole',
    only: overHttp2,
    upstream: inTurn((served) => served.refuse()),
    ask: { ...POST, chunked: true, bodyAfter: new Promise((resolve) => setTimeout(resolve, 100)) },
    expect: async (answer, seen) => {
      assert.equal(answer.status, 200);
      assert.equal(await seen[1]!.body, 'hello');
    },
    requests: 2,
  },
  {
    title: 'POST that is refused unbegun again and again is answered in the end',
    only: overHttp2,
    upstream: (served) => served.refuse(),
    ask: POST,
    expect: { status: 502 },
    requests: 1 + MOST_REFUSALS,
  },
  {
    title: 'GET that was refused unbegun, and whose next connection dies, is still sent once more',
    only: overHttp2,
    upstream: inTurn((served) => served.refuse(), dies),
    expect: { status: 200 },
    requests: 3,
  },
];

/** Replies that a server of Node's would not give: bytes of HTTP/1.1, and frames for what HTTP/2 has of it. */
const replies: readonly Situation[] = [
  {
    title: 'a length with zeros in front',
    upstream: (served) => served.odd([['content-length', '0005']], 'hello'),
    expect: (answer) => assertLength(answer, '5', 'hello'),
  },
  {
    title: 'the same length twice',
    upstream: (served) =>
      served.odd(
        [
          ['content-length', '5'],
          ['content-length', '5'],
        ],
        'hello',
      ),
    expect: (answer) => assertLength(answer, '5', 'hello'),
  },
  {
    title: 'a list of equal lengths',
    upstream: (served) => served.odd([['content-length', '5, 5']], 'hello'),
    expect: (answer) => assertLength(answer, '5', 'hello'),
  },
  {
    title: 'two lengths that differ: 502',
    upstream: (served) =>
      served.odd(
        [
          ['content-length', '5'],
          ['content-length', '6'],
        ],
        'hello!',
      ),
    expect: { status: 502 },
  },
  {
    title: 'a length with a sign: 502',
    upstream: (served) => served.odd([['content-length', '+5']], 'hello'),
    expect: { status: 502 },
  },
  {
    title: 'a status of 600',
    upstream: (served) => served.odd([['content-length', '5']], 'hello', 600),
    expect: { status: 600, body: 'hello', cut: false },
  },
  {
    title: 'a status of 999',
    upstream: (served) => served.odd([['content-length', '5']], 'hello', 999),
    expect: { status: 999, body: 'hello', cut: false },
  },
  {
    title: 'a status of 099: 502',
    upstream: (served) => served.odd([['content-length', '5']], 'hello', '099'),
    expect: { status: 502 },
  },
  {
    title: '126 fields, which Node takes still',
    upstream: (served) =>
      served.odd(
        Array.from({ length: 125 }, (_, i) => [`x-${i}`, 'y'] as const),
        '',
      ),
    ask: { method: 'HEAD' },
    expect: (answer) => {
      assert.equal(answer.status, 200);
      assert.equal(Object.keys(answer.headers).filter((name) => name.startsWith('x-')).length, 125);
    },
  },
  {
    title: '130 fields',
    // Node's client of HTTP/2 takes no more than 128.
    only: ({ client }) => client === 'h1',
    upstream: (served) =>
      served.odd(
        [...Array.from({ length: 129 }, (_, i) => [`x-${i}`, 'y'] as const), ['content-length', '5']],
        'hello',
      ),
    expect: (answer) => {
      assert.deepEqual([answer.status, answer.body], [200, 'hello']);
      assert.equal(Object.keys(answer.headers).filter((name) => name.startsWith('x-')).length, 129);
    },
  },
  {
    title: 'fields larger than allowed: 502',
    way: { options: { limits: { maxHeaderBytes: 16_384 } } },
    upstream: (served) =>
      served.odd(
        [
          ['x', 'y'.repeat(16_300)],
          ['z', 'y'.repeat(1_000)],
        ],
        'hello',
      ),
    expect: { status: 502 },
  },
  {
    title: 'chunks with blanks after their size and around their extensions',
    only: ({ upstream }) => upstream === 'h1',
    upstream: (served) =>
      served.odd([['transfer-encoding', 'chunked']], '5 \r\nhello\r\n1 ; a = b\r\n!\r\n0  \r\n\r\n'),
    expect: { status: 200, body: 'hello!', cut: false },
  },
  {
    title: '200 interim replies, and then the reply',
    upstream: (served) => {
      for (let i = 0; i < 200; i++) served.interim(103, { link: `</${i}>` });
      served.reply(200, 'ok');
    },
    expect: (answer) => {
      assert.deepEqual(answer.interims, Array(200).fill(103));
      assert.deepEqual([answer.status, answer.body, answer.cut], [200, 'ok', false]);
    },
  },
  {
    title: '100, 102 and 103 in their order',
    upstream: (served) => {
      for (const status of [102, 103]) served.interim(status);
      served.reply(204);
    },
    expect: (answer) => assert.deepEqual([answer.interims, answer.status], [[102, 103], 204]),
  },
  {
    title: 'a body that waits for 100 Continue',
    upstream: (served) => {
      served.interim(100);
      ok(served);
    },
    asks: (client) => {
      const told = Promise.withResolvers<void>();
      const onInterim = (status: number) => status === 100 && told.resolve();
      return client.ask({ ...POST, headers: { expect: '100-continue' }, bodyAfter: told.promise, onInterim });
    },
    expect: { status: 200, body: 'ok', cut: false },
    requests: 1,
  },
  {
    title: 'a reply before the body of a request that waits for 100 Continue',
    upstream: (served) => served.reply(417, 'no'),
    ask: { ...POST, headers: { expect: '100-continue' }, bodyAfter: new Promise(() => {}) },
    expect: { status: 417, body: 'no', cut: false },
  },
  {
    title: 'trailers of a reply',
    upstream: (served) => {
      served.begin(200, { trailer: 'x-sum' });
      served.write('hello');
      served.end({ 'x-sum': '1' });
    },
    expect: (answer) => {
      assert.deepEqual([answer.status, answer.body, answer.trailers['x-sum']], [200, 'hello', '1']);
      assert.equal(answer.cut, false);
    },
  },
  {
    title: 'trailers of a request, without credentials among them',
    ask: { ...POST, trailers: { 'x-sum': '1', authorization: 'x' } },
    expect: (answer, [served]) => {
      assert.equal(answer.status, 200);
      assert.deepEqual(Object.entries(served!.trailers()), [['x-sum', '1']]);
    },
  },
  {
    title: 'HEAD: the length, and no body',
    upstream: (served) => served.odd([['content-length', '1000']], ''),
    ask: { method: 'HEAD' },
    expect: (answer) => assertLength(answer, '1000', ''),
  },
  {
    title: '204 with a length: without',
    upstream: (served) => served.odd([['content-length', '0']], '', 204),
    expect: (answer) => {
      assert.equal(answer.status, 204);
      assert.equal(answer.headers['content-length'], undefined);
    },
  },
  {
    title: '304 with the length of the 200',
    upstream: (served) => served.odd([['content-length', '7']], '', 304),
    expect: (answer) => {
      assert.deepEqual([answer.status, answer.cut], [304, false]);
      assert.equal(answer.headers['content-length'], '7');
    },
  },
  {
    title: 'fields of one hop stay behind',
    upstream: (served) => served.reply(200, 'ok', { 'proxy-authenticate': 'x', 'x-kept': '1' }),
    expect: (answer) => {
      assert.deepEqual([answer.headers['x-kept'], answer.headers['proxy-authenticate']], ['1', undefined]);
    },
  },
];

const cuts: readonly Situation[] = [
  {
    title: 'a reply by length that is cut never looks whole',
    upstream: (served) => {
      served.begin(200, { 'content-length': '10' });
      served.write('hello');
      setTimeout(() => served.cut(), 50);
    },
    expect: { status: 200, body: 'hello', cut: true },
    requests: 1,
  },
  {
    title: 'a reply without a length that is cut never looks whole',
    upstream: (served) => {
      served.begin(200);
      served.write('hello');
      setTimeout(() => served.cut(), 50);
    },
    expect: { status: 200, body: 'hello', cut: true },
    requests: 1,
  },
  {
    title: 'an upstream that never answers: 504',
    way: { settings: { readTimeoutMs: 100 } },
    upstream: () => {},
    expect: { status: 504 },
    requests: 1,
  },
  {
    title: 'an upstream that never answers a POST: 504',
    way: { settings: { readTimeoutMs: 100 } },
    upstream: () => {},
    ask: POST,
    expect: { status: 504 },
    requests: 1,
  },
  {
    title: 'a reply that takes longer than the whole may: cut',
    way: { settings: { totalTimeoutMs: 300 } },
    upstream: (served) => {
      served.begin(200);
      served.write('hello');
      const more = setInterval(() => served.write('.'), 20);
      void served.gone.then(() => clearInterval(more));
    },
    expect: ({ status, cut }) => assert.deepEqual([status, cut], [200, true]),
    requests: 1,
  },
  {
    // From HTTP/2 to HTTP/2 it may be a conversation, and either side silent for the longer of the two times.
    title: 'a body that never comes: 408',
    way: { settings: { readTimeoutMs: 100 }, options: { limits: { clientIdleTimeoutMs: 100 } } },
    upstream: () => {},
    ask: { ...POST, bodyAfter: new Promise(() => {}) },
    expect: { status: 408 },
  },
  {
    title: 'a reply in the middle of a request, whose rest is not wanted',
    upstream: (served) => served.reply(401, 'who?'),
    ask: { ...POST, body: 'x'.repeat(3_000_000) },
    expect: { status: 401, body: 'who?', cut: false },
    requests: 1,
  },
  {
    title: 'an upload of 3 MB and a download of 3 MB',
    upstream: (served) => void served.body.then((body) => served.reply(200, body)),
    ask: { ...POST, body: 'x'.repeat(3_000_000) },
    expect: (answer) =>
      assert.deepEqual([answer.status, answer.body.length, answer.cut], [200, 3_000_000, false]),
    requests: 1,
  },
];

/** What a WebSocket comes to: RFC 9110 §7.8 switches a connection of HTTP/1.1, RFC 8441 §5 opens a stream of HTTP/2. */
const SWITCHED: Readonly<Record<Pairing['client'], number>> = { h1: 101, h2: 200 };

const upgrades: readonly Situation[] = [
  {
    // No stream to an upstream of HTTP/2 becomes a WebSocket: an Upgrade may be ignored, an extended CONNECT may not.
    title: 'a WebSocket, whose bytes go there and back',
    upstream: (served) => (served.headers.upgrade === undefined ? ok(served) : served.switch()),
    ask: { websocket: 'there and back' },
    expect: ({ status, body, cut }, _seen, { client, upstream }) => {
      assert.equal(cut, false);
      if (upstream === 'h1') assert.deepEqual([status, body], [SWITCHED[client], 'there and back']);
      else if (client === 'h1') assert.deepEqual([status, body], [200, 'ok']);
      else assert.equal(status, 501);
    },
  },
  {
    title: 'a WebSocket that the upstream does not want: its reply',
    upstream: (served) => served.reply(403, 'no'),
    ask: { websocket: 'there and back' },
    expect: ({ status, body, cut }, _seen, { client, upstream }) => {
      assert.equal(cut, false);
      if (client === 'h2' && upstream === 'h2c') assert.equal(status, 501);
      else assert.deepEqual([status, body], [403, 'no']);
    },
  },
  {
    title: 'a switch of protocols that was not asked for: 502',
    upstream: (served) => served.odd([], '', 101),
    expect: { status: 502 },
    requests: 1,
  },
];

const drains: readonly Situation[] = [
  {
    title: 'what is under way when a drain begins is answered, whole',
    upstream: () => {},
    async asks(client, { ingress, serving }) {
      const answer = client.ask();
      await eventually(() => serving.requests.length === 1);
      const drained = ingress.listener.drain(10_000);
      serving.requests[0]!.reply(200, 'last');
      await drained;
      return answer;
    },
    expect: { status: 200, body: 'last', cut: false },
    requests: 1,
  },
  {
    title: 'what is still under way when a drain ends is cut, and no error page is taken for its reply',
    upstream: () => {},
    async asks(client, { ingress, serving }) {
      const answer = client.ask();
      await eventually(() => serving.requests.length === 1);
      await ingress.listener.drain(50);
      return answer;
    },
    expect: { status: 0, body: '', cut: true },
    requests: 1,
  },
  {
    // Node's client of HTTP/2 begins nothing on a connection that has announced its end.
    title: 'a request that was on its way when a drain began is answered, and told that it was the last',
    only: ({ client }) => client === 'h1',
    async asks(client, { ingress }) {
      assert.equal((await client.ask()).status, 200);
      const drained = ingress.listener.drain(10_000);
      const answer = await client.ask();
      await drained;
      return answer;
    },
    expect: ({ status, headers }) => assert.deepEqual([status, headers.connection], [200, 'close']),
    requests: 2,
  },
];

function assertLength(answer: Answer, length: string, body: string) {
  assert.deepEqual([answer.status, answer.body, answer.cut], [200, body, false]);
  assert.equal(answer.headers['content-length'], length);
}

const groups: readonly (readonly [string, readonly Situation[]])[] = [
  ['checks', checks],
  ['retries', retries],
  ['replies', replies],
  ['cuts', cuts],
  ['upgrades', upgrades],
  ['drains', drains],
];

for (const [group, situations] of groups) {
  describe(group, () => {
    for (const situation of situations) {
      for (const pairing of pairings.filter((one) => situation.only?.(one) ?? true)) {
        it(`${situation.title} (${pairing.name})`, async (t) => {
          const { upstream = ok, way, ask, asks, expect } = situation;
          const serving = await serve(t, pairing.upstream, upstream);
          const joined = await join(t, pairing, serving.port, way);
          const client = joined.client();
          const place = { ingress: joined.ingress, serving };
          const answer = await (asks === undefined ? client.ask(ask) : asks(client, place));
          if (typeof expect === 'function') await expect(answer, serving.requests, pairing);
          else assert.deepEqual({ ...answer, ...expect }, answer);
          if (situation.requests !== undefined) assert.equal(serving.requests.length, situation.requests);
        });
      }
    }
  });
}
