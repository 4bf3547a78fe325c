// A CA that lies, stalls, floods, refuses or forgets, and what the transport makes of it.

import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, type TestContext, test } from 'node:test';
import { generateKey } from '../../acme/account.ts';
import { AcmeProblem, AcmeTransportError } from '../../acme/answer.ts';
import { createTransport } from '../../acme/transport.ts';
import { parseRetryAfter } from '../../src/lib/retry-after.ts';
import { problem, startShim } from '../support/acme-shim.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { recordedLog } from './support.ts';

let pebble: Pebble;
before(async () => {
  pebble = await startPebble({ nonceRejectPercent: 90 });
});
after(() => pebble?.stop());

const signal = () => AbortSignal.timeout(30_000);

async function hostile(t: TestContext, listener: RequestListener, timeoutMs = 10_000) {
  const server = createServer({ cert: pebble.server.cert, key: pebble.server.key }, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/dir`;
  const clock = notingClock();
  const transport = createTransport({ directoryUrl: url, caPem: pebble.caPem, timeoutMs, clock });
  t.after(async () => {
    await transport.close();
    server.closeAllConnections();
    server.close();
  });
  return { transport, url };
}

/** Sleeps pass at once, and are noted. */
function notingClock() {
  let passedMs = 0;
  const slept: number[] = [];
  return {
    slept,
    pass: (ms: number) => {
      passedMs += ms;
    },
    now: () => new Date(),
    monotonicMs: () => passedMs,
    async sleep(ms: number) {
      slept.push(ms);
      passedMs += ms;
    },
  };
}

function refuses(code: string, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof AcmeTransportError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}

test('a page of HTML with status 200 is not taken for a directory', async (t) => {
  const { transport } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'text/html' }).end('<h1>captive portal</h1>');
  });
  await assert.rejects(transport.directory(signal()), refuses('ca-unintelligible', /"text\/html"/));
});

test('JSON that breaks off is refused', async (t) => {
  const { transport } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'application/json' }).end('{"newNonce": "https://');
  });
  await assert.rejects(transport.directory(signal()), refuses('ca-unintelligible', /JSON is broken/));
});

test('a directory without its URLs is refused with the name of what is missing', async (t) => {
  const { transport } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'application/json' }).end('{"newNonce": "https://a/"}');
  });
  await assert.rejects(transport.directory(signal()), refuses('ca-unintelligible', /newAccount/));
});

test('an endless answer is cut off', async (t) => {
  const { transport } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'application/json' });
    const flood = () => {
      while (!reply.destroyed && reply.write(Buffer.alloc(65_536, 32)));
    };
    reply.on('drain', flood);
    flood();
  });
  await assert.rejects(transport.directory(signal()), refuses('ca-unintelligible', /longer than/));
});

test('a redirect is not followed', async (t) => {
  let asked = 0;
  const { transport, url } = await hostile(t, (_, reply) => {
    asked += 1;
    reply.writeHead(302, { location: `${url}2`, 'content-type': 'application/json' }).end('{}');
  });
  await assert.rejects(transport.directory(signal()), refuses('ca-unintelligible', /redirect/));
  assert.equal(asked, 1);
});

test('a URL without TLS, or a text that is no URL, is not asked', async (t) => {
  const { transport } = await hostile(t, (_, reply) => reply.end());
  await assert.rejects(
    transport.get('http://127.0.0.1:1/', signal()),
    refuses('ca-unintelligible', /https only/),
  );
  await assert.rejects(
    transport.get('file:///etc/passwd', signal()),
    refuses('ca-unintelligible', /https only/),
  );
  await assert.rejects(transport.get('nonsense', signal()), refuses('ca-unintelligible', /as a URL/));
});

test('a CA that accepts and says nothing ends in a timeout', async (t) => {
  const { transport } = await hostile(t, () => {}, 50);
  await assert.rejects(transport.directory(signal()), refuses('ca-timeout', /no answer in 50 ms/));
});

test('a CA where nobody listens is unreachable, and the cause is kept', async (t) => {
  const transport = createTransport({ directoryUrl: 'https://127.0.0.1:1/dir' });
  t.after(transport.close);
  await assert.rejects(transport.directory(signal()), (error: Error) => {
    refuses('ca-unreachable', /127\.0\.0\.1:1/)(error);
    assert.match(String((error.cause as NodeJS.ErrnoException).code), /ECONNREFUSED/);
    return true;
  });
});

test('a CA whose certificate is not trusted is not spoken to', async (t) => {
  const transport = createTransport({ directoryUrl: pebble.directoryUrl });
  t.after(transport.close);
  await assert.rejects(transport.directory(signal()), refuses('ca-unreachable', /cannot be reached/));
});

test('the proxies of the environment are not used', async (t) => {
  const before = process.env.HTTPS_PROXY;
  process.env.HTTPS_PROXY = 'http://127.0.0.1:1';
  t.after(() => {
    if (before === undefined) delete process.env.HTTPS_PROXY;
    else process.env.HTTPS_PROXY = before;
  });
  const transport = createTransport({ directoryUrl: pebble.directoryUrl, caPem: pebble.caPem });
  t.after(transport.close);
  assert.ok((await transport.directory(signal())).newOrder.startsWith('https://'));
});

test('an aborted request rejects with the reason of the abort', async (t) => {
  const { transport } = await hostile(t, () => {});
  const abort = new AbortController();
  const reason = new Error('we are stopping');
  setTimeout(() => abort.abort(reason), 20);
  await assert.rejects(transport.directory(abort.signal), (error) => error === reason);
});

test('nine nonces of ten refused: requests get through, and no nonce is ever sent twice', async (t) => {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem });
  t.after(transport.close);
  const session = transport.session(generateKey());
  const { newAccount } = await transport.directory(signal());
  const made = await session.post(newAccount, { termsOfServiceAgreed: true }, { signal: signal() });
  assert.equal(made.status, 201);
  const kid = made.headers.location!;
  await Promise.all([1, 2, 3, 4].map(() => session.post(kid, null, { kid, signal: signal() })));
  const nonces = shim.requests.map((each) => each.nonce).filter((nonce) => nonce !== undefined);
  assert.ok(nonces.length > 5);
  assert.equal(new Set(nonces).size, nonces.length);
});

test('a CA that refuses every nonce is given up on', async (t) => {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  shim.intercept = ({ method }) =>
    method === 'POST' ? problem(400, 'badNonce', 'never', { 'replay-nonce': 'AAAA' }) : undefined;
  const clock = notingClock();
  const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem, clock });
  t.after(transport.close);
  const posted = transport.session(generateKey()).post(shim.directoryUrl, {}, { signal: signal() });
  await assert.rejects(posted, (error) => error instanceof AcmeProblem && error.type === 'badNonce');
});

test('a nonce that is not base64url is ignored', async (t) => {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  shim.intercept = ({ method }) =>
    method === 'HEAD' ? { status: 200, headers: { 'replay-nonce': 'a b"' } } : undefined;
  const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem });
  t.after(transport.close);
  const posted = transport.session(generateKey()).post(shim.directoryUrl, {}, { signal: signal() });
  await assert.rejects(posted, refuses('ca-unintelligible', /no nonce/));
});

test('a refusal keeps its type, status, reason, subproblems and delay, and its control characters do not reach a log', async (t) => {
  const subproblems = [
    {
      type: 'urn:ietf:params:acme:error:rejectedIdentifier',
      detail: 'never heard\u001b[31m of it',
      identifier: { type: 'dns', value: 'bad.example' },
    },
  ];
  const body = {
    type: 'urn:ietf:params:acme:error:rateLimited',
    detail: 'too many\r\nforged line',
    subproblems,
  };
  const { transport, url } = await hostile(t, (_, reply) => {
    reply
      .writeHead(429, { 'content-type': 'application/problem+json', 'retry-after': '5' })
      .end(JSON.stringify(body));
  });
  await assert.rejects(transport.get(url, signal()), (error) => {
    assert.ok(error instanceof AcmeProblem);
    assert.deepEqual([error.type, error.status, error.retryAfterMs], ['rateLimited', 429, 5000]);
    assert.equal(error.subproblems[0]?.identifier, 'bad.example');
    assert.match(error.message, /too many forged line; bad\.example: never heard \[31m of it/);
    assert.doesNotMatch(error.message, /[\r\n\u001b]/);
    return true;
  });
});

test('an overloaded CA is asked again when it says, and an error page is a problem without a type', async (t) => {
  let asked = 0;
  const { transport, url } = await hostile(t, (_, reply) => {
    asked += 1;
    reply.writeHead(503, { 'content-type': 'text/html', 'retry-after': '0' }).end('<h1>busy</h1>');
  });
  await assert.rejects(
    transport.get(url, signal()),
    (error) => error instanceof AcmeProblem && error.type === 'about:blank' && error.status === 503,
  );
  assert.equal(asked, 3);
});

test('Retry-After is read as seconds or a date and never exceeds a day', () => {
  const now = new Date('2026-01-01T00:00:00Z');
  assert.equal(parseRetryAfter('5', now), 5000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:01:00 GMT', now), 60_000);
  assert.equal(parseRetryAfter('Wed, 31 Dec 2025 00:00:00 GMT', now), 0);
  assert.equal(parseRetryAfter('3000000', now), 86_400_000);
  assert.equal(parseRetryAfter('9'.repeat(400), now), 86_400_000);
  assert.equal(parseRetryAfter('soon', now), undefined);
  assert.equal(parseRetryAfter(undefined, now), undefined);
});

test('a clock that differs from that of the CA is measured and reported once', async (t) => {
  const { log, lines } = recordedLog();
  const clock = { now: () => new Date(Date.now() - 86_400_000), sleep: async () => {} };
  const { url } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  const transport = createTransport({ directoryUrl: url, caPem: pebble.caPem, clock, log });
  t.after(transport.close);
  await transport.get(url, signal());
  await transport.get(url, signal());
  assert.ok(Math.abs(transport.clockSkewMs()! - 86_400_000) < 60_000);
  assert.equal(lines.filter((line) => line.msg === 'clock differs from that of the ca').length, 1);
});

test('a CA that refuses every nonce is given time, and asked only a few times more by the next request', async (t) => {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  shim.intercept = ({ method }) =>
    method === 'POST' ? problem(400, 'badNonce', 'never', { 'replay-nonce': 'AAAA' }) : undefined;
  const clock = notingClock();
  const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem, clock });
  t.after(transport.close);
  const posts = () => shim.requests.filter(({ method }) => method === 'POST').length;
  const post = () => transport.session(generateKey()).post(shim.directoryUrl, {}, { signal: signal() });
  await assert.rejects(post(), { type: 'badNonce' });
  const first = posts();
  assert.ok(clock.slept.reduce((a, b) => a + b, 0) > 10_000, 'no more than ten a second');
  await assert.rejects(post(), { type: 'badNonce' });
  assert.ok(posts() - first <= 6, `${posts() - first} requests`);
  shim.intercept = () => undefined;
  await assert.rejects(post(), (error) => error instanceof AcmeProblem && error.type !== 'badNonce');
});

for (const [what, path] of [
  ['the directory', '/dir'],
  ['nonces', '/nonce-plz'],
  ['new accounts', '/sign-me-up'],
] as const) {
  test(`a CA that wants to be left alone for an hour about ${what} is asked once an hour, whoever asks`, async (t) => {
    const shim = await startShim(pebble);
    t.after(shim.stop);
    const clock = notingClock();
    const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem, clock });
    t.after(transport.close);
    shim.intercept = (asked) =>
      asked.path === path ? problem(503, 'rateLimited', 'busy', { 'retry-after': '3600' }) : undefined;
    const session = transport.session(generateKey());
    const register = async () => {
      const { newAccount } = await transport.directory(signal());
      return session.post(newAccount, { termsOfServiceAgreed: true }, { signal: signal() });
    };
    const asked = () =>
      shim.requests.filter((each) => each.path === path && each.payload === undefined).length;
    const count = () =>
      path === '/sign-me-up'
        ? new Set(shim.requests.filter((each) => each.path === path).map(({ nonce }) => nonce)).size
        : asked();
    for (const _ of [1, 2, 3]) {
      await assert.rejects(register(), (error: AcmeProblem) => {
        assert.equal(error.status, 503);
        assert.ok(error.retryAfterMs! > 3_500_000 && error.retryAfterMs! <= 3_600_000);
        return true;
      });
    }
    assert.equal(count(), 1);
    clock.pass(3_600_000);
    await assert.rejects(register());
    assert.equal(count(), 2);
    clock.pass(3_600_000);
    shim.intercept = () => undefined;
    assert.equal((await register()).status, 201);
  });
}

test('a clock that was ahead when the directory was fetched does not keep it for as long', async (t) => {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  const clock = { ...notingClock(), now: () => new Date(Date.now() + 20 * 86_400_000) };
  const transport = createTransport({ directoryUrl: shim.directoryUrl, caPem: pebble.caPem, clock });
  t.after(transport.close);
  await transport.directory(signal());
  clock.now = () => new Date();
  clock.pass(86_400_001);
  await transport.directory(signal());
  assert.equal(shim.requests.filter(({ path }) => path === '/dir').length, 2);
});

test('an odd value of something optional in a directory counts as absent', async (t) => {
  const own = { newNonce: 'https://a/', newAccount: 'https://a/', newOrder: 'https://a/' };
  const odd = { renewalInfo: 7, meta: { caaIdentities: 'ca.example', profiles: [], termsOfService: null } };
  const { transport } = await hostile(t, (_, reply) => {
    reply.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ ...own, ...odd }));
  });
  const { renewalInfo, meta } = await transport.directory(signal());
  assert.equal(renewalInfo, undefined);
  assert.deepEqual(
    [meta.caaIdentities, meta.profiles, meta.termsOfService],
    [undefined, undefined, undefined],
  );
});
