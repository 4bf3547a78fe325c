// Whatever a CA answers at whichever step, an attempt ends within a bounded number of requests and says why.

import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { Account } from '../../acme/account.ts';
import { AcmeProblem, AcmeTransportError } from '../../acme/answer.ts';
import type { AcmeResponse } from '../../acme/ca-http.ts';
import { createAcme } from '../../acme/connect.ts';
import { IssuerError, type Solver } from '../../acme/issuer.ts';
import { createIssuer } from '../../acme/obtain.ts';
import { createStore, type Store } from '../../acme/store.ts';
import type { Transport } from '../../acme/transport.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { makeServerCertificate } from '../support/pebble.ts';
import { freshFolder } from './support.ts';

const HOUR = 3_600_000;
const base = 'https://ca.example';
const name = parseDomain('a.example');
/** Half an hour of polls, and ten times all authorizations. */
const MOST_REQUESTS = 1_000;

/** Time passes only while a part sleeps. */
function fastClock(): Clock & { pass(ms: number): void } {
  let nowMs = Date.parse('2026-01-01T00:00:00Z');
  return {
    now: () => new Date(nowMs),
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      nowMs += ms;
    },
    pass: (ms) => {
      nowMs += ms;
    },
  };
}

const solver: Solver = {
  type: 'dns-01',
  present: async () => {},
  wait: async () => {},
  cleanUp: async () => {},
};

const url = fc.constantFrom(
  ...['order/1', 'authz/1', 'chall/1', 'finalize/1', 'cert/1'].map((each) => `${base}/${each}`),
);
const odd = <T>(usual: fc.Arbitrary<T>) =>
  fc.oneof(
    { weight: 8, arbitrary: usual as fc.Arbitrary<unknown> },
    { weight: 1, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 2 }) },
  );
const refusal = fc.record({ type: odd(fc.string()), detail: odd(fc.string()) }, { requiredKeys: [] });
const challenge = fc.record(
  {
    type: odd(fc.constantFrom('dns-01', 'http-01')),
    url: odd(url),
    status: odd(fc.constantFrom('pending', 'processing', 'valid', 'invalid')),
    token: odd(fc.constant('evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA')),
    error: odd(refusal),
  },
  { requiredKeys: [] },
);
/** Of the shape of orders, authorizations and challenges, more or less. */
const fields = {
  status: odd(
    fc.constantFrom(
      'pending',
      'ready',
      'processing',
      'valid',
      'invalid',
      'deactivated',
      'expired',
      'revoked',
    ),
  ),
  expires: odd(fc.constantFrom('2026-01-08T00:00:00Z', '2020-01-01T00:00:00Z', '2999-01-01T00:00:00Z')),
  authorizations: odd(fc.array(odd(url), { maxLength: 3 })),
  finalize: odd(url),
  certificate: odd(url),
  identifier: odd(fc.record({ type: fc.constant('dns'), value: odd(fc.constantFrom('a.example', '..')) })),
  wildcard: odd(fc.boolean()),
  challenges: odd(fc.array(odd(challenge), { maxLength: 3 })),
  error: odd(refusal),
};
const resource = fc.oneof(fc.record(fields), fc.record(fields, { requiredKeys: [] }));
const data = fc.oneof(
  { weight: 6, arbitrary: resource as fc.Arbitrary<unknown> },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 2 }) },
);
const retryAfterMs = fc.constantFrom(undefined, undefined, 0, 5_000, 24 * HOUR);
const answer = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('answer' as const), data, retryAfterMs, location: odd(url) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('problem' as const),
      type: fc.constantFrom('orderNotReady', 'malformed', 'rateLimited', 'unauthorized', 'serverInternal'),
      status: fc.constantFrom(400, 403, 404, 429, 500, 503),
      retryAfterMs,
    }),
  },
);
type Answer = typeof answer extends fc.Arbitrary<infer T> ? T : never;

function answered(each: Answer): AcmeResponse {
  if (each.kind === 'problem') {
    const { type, status } = each;
    throw new AcmeProblem('POST', {
      type,
      status,
      detail: 'no',
      subproblems: [],
      retryAfterMs: each.retryAfterMs,
    });
  }
  const headers: Record<string, string> = {};
  if (typeof each.location === 'string') headers.location = each.location;
  return { status: 200, headers, data: each.data, retryAfterMs: each.retryAfterMs };
}

const transport = {
  directory: async () => ({
    newNonce: `${base}/nonce`,
    newAccount: `${base}/account`,
    newOrder: `${base}/new-order`,
    renewalInfo: `${base}/ari`,
    meta: {},
  }),
} as unknown as Transport;

function issuerOver(store: Store, clock: Clock, post: (url: string) => AcmeResponse) {
  const account = {
    url: `${base}/acct/1`,
    session: { thumbprint: 'x', post: async (asked: string) => post(asked) },
  } as unknown as Account;
  return createIssuer({ transport, account, solver, store, clock });
}

/** What says why. */
function isTold(error: unknown): boolean {
  assert.ok(
    error instanceof IssuerError || error instanceof AcmeProblem || error instanceof AcmeTransportError,
    String((error as Error).stack),
  );
  return error.message.length > 10;
}

async function freshStore(t: TestContext, clock: Clock): Promise<Store> {
  return createStore({ stateDir: await freshFolder(t), directoryUrl: `${base}/dir`, clock });
}

test('whatever the CA answers at each step, an attempt ends in a bounded number of requests and says why', async (t) => {
  const shared = await freshStore(t, fastClock());
  await fc.assert(
    fc.asyncProperty(
      fc.array(answer, { minLength: 1, maxLength: 12 }),
      fc.boolean(),
      async (answers, forget) => {
        const clock = fastClock();
        let requests = 0;
        const issuer = issuerOver(shared, clock, () => {
          const next = answers[requests % answers.length]!;
          requests += 1;
          assert.ok(requests < MOST_REQUESTS, 'it asks without end');
          return answered(next);
        });
        const before = forget ? await shared.readOrder(name) : undefined;
        if (before !== undefined) await shared.dropOrder(name, before);
        await assert.rejects(
          issuer.obtain([name], new AbortController().signal, { replaces: 'AAAA.BBBB' }),
          isTold,
        );
      },
    ),
    { numRuns: 1_000 },
  );
});

test('whatever the CA says of an order, another is placed within eight days', async (t) => {
  await fc.assert(
    fc.asyncProperty(answer, answer, async (ofOrder, ofOthers) => {
      const clock = fastClock();
      const store = await freshStore(t, clock);
      let placed = 0;
      const issuer = issuerOver(store, clock, (asked) => {
        if (asked === `${base}/new-order`) {
          placed += 1;
          return {
            status: 201,
            headers: { location: `${base}/order/1` },
            data: { status: 'pending' },
            retryAfterMs: undefined,
          };
        }
        return answered(asked === `${base}/order/1` ? ofOrder : ofOthers);
      });
      for (const waitHours of [0, 1, 24, 24, 24, 24, 24, 24, 24, 23]) {
        clock.pass(waitHours * HOUR);
        await assert.rejects(issuer.obtain([name], new AbortController().signal), isTold);
      }
      assert.ok(placed > 1, 'one order for ever');
    }),
    { numRuns: 100 },
  );
});

test('whatever stands in directory, nonces, account and orders of a CA, connecting and ordering end and say why', async (t) => {
  const tls = await makeServerCertificate();
  let respond: (path: string) => { status: number; headers: Record<string, string>; body: string };
  let requests = 0;
  const server = createServer({ cert: tls.cert, key: tls.key }, (request, reply) => {
    request.resume();
    requests += 1;
    const { status, headers, body } = respond(request.url ?? '');
    reply.writeHead(status, headers).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const own = (text: string) => text.replaceAll(base, origin);
  const directory = fc.record(
    {
      newNonce: odd(fc.constant(`${base}/nonce`)),
      newAccount: odd(fc.constant(`${base}/account`)),
      newOrder: odd(fc.constant(`${base}/new-order`)),
      renewalInfo: odd(fc.constant(`${base}/ari`)),
      meta: odd(
        fc.record({ profiles: odd(fc.constant({ classic: 'x' })), caaIdentities: odd(fc.constant([])) }),
      ),
    },
    { requiredKeys: ['newNonce', 'newAccount', 'newOrder'] },
  );
  const type = fc.constantFrom(
    'application/json',
    'application/json',
    'application/problem+json',
    'text/html',
    '',
  );
  const status = fc.constantFrom(200, 200, 200, 200, 201, 204, 302, 400, 429, 503);
  const header = fc.record(
    {
      'retry-after': fc.constantFrom('0', '1', '3000000', 'soon'),
      'replay-nonce': fc.constantFrom('AAAA', 'BBBB', 'BBBB', 'a b"'),
      location: fc.constant(`${base}/order/1`),
    },
    { requiredKeys: [] },
  );
  const reply = fc.record({ status, type, header, data });
  const account = { data: { status: 'valid' }, location: `${base}/acct/1` };
  await fc.assert(
    fc.asyncProperty(
      directory,
      fc.array(reply, { minLength: 1, maxLength: 6 }),
      fc.nat(4),
      async (dir, replies, sound) => {
        const clock = fastClock();
        const store = await createStore({
          stateDir: await freshFolder(t),
          directoryUrl: `${origin}/dir`,
          clock,
        });
        requests = 0;
        respond = (path) => {
          // With luck the first steps go well, so that the later ones are reached.
          const headers = { 'content-type': 'application/json', 'replay-nonce': `N${requests}` };
          if (path === '/dir') return { status: 200, headers, body: own(JSON.stringify(dir)) };
          if (sound > 0 && path === '/nonce') return { status: 200, headers, body: '' };
          if (sound > 1 && path === '/account')
            return { status: 201, headers: { ...headers, location: own(account.location) }, body: '{}' };
          const next = replies[requests % replies.length]!;
          return {
            status: next.status,
            headers: JSON.parse(own(JSON.stringify({ ...next.header, 'content-type': next.type }))),
            body: next.status === 204 ? '' : own(JSON.stringify(next.data)),
          };
        };
        const acme = createAcme({ directoryUrl: `${origin}/dir`, caPem: tls.ca, store, solver, clock });
        try {
          const { signal } = new AbortController();
          await assert.rejects(
            async () => (await acme.connect(signal)).issuer.obtain([name], signal),
            (error: Error) => error.message.length > 10,
          );
          assert.ok(requests < MOST_REQUESTS, `${requests} requests`);
        } finally {
          await acme.close();
        }
      },
    ),
    { numRuns: 60 },
  );
});
