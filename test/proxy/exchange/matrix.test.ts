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
  serve,
  type Way,
} from '../../support/pairings.ts';

interface Situation {
  readonly title: string;
  /** What the upstream does; by default it takes the whole request and answers 200. */
  readonly upstream?: Script;
  readonly way?: Way;
  readonly ask?: Ask;
  /** Instead of `ask`: more than one request. */
  readonly asks?: (client: Client) => Promise<Answer>;
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
  matches: (path) => path.startsWith('/local/'),
  handle: ({ method, path }) => ({ status: 200, headers: {}, body: Buffer.from(`${method} ${path}`) }),
};
const limited: Way = { options: { limits: { maxBodyBytes: 10 }, localHandlers: [local] } };

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

const groups: readonly (readonly [string, readonly Situation[]])[] = [
  ['checks', checks],
  ['retries', retries],
];

for (const [group, situations] of groups) {
  describe(group, () => {
    for (const situation of situations) {
      for (const pairing of pairings.filter((one) => situation.only?.(one) ?? true)) {
        it(`${situation.title} (${pairing.name})`, async (t) => {
          const { upstream = ok, way, ask, asks, expect } = situation;
          const serving = await serve(t, pairing.upstream, upstream);
          const client = (await join(t, pairing, serving.port, way)).client();
          const answer = await (asks === undefined ? client.ask(ask) : asks(client));
          if (typeof expect === 'function') await expect(answer, serving.requests, pairing);
          else assert.deepEqual({ ...answer, ...expect }, answer);
          if (situation.requests !== undefined) assert.equal(serving.requests.length, situation.requests);
        });
      }
    }
  });
}
