// What Pebble lacks, added by a proxy in front of it: renewal information, profiles, refusals with a delay, conflicts.

import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { generateKey } from '../../acme/account.ts';
import { AcmeProblem } from '../../acme/answer.ts';
import { createAcme } from '../../acme/connect.ts';
import { createDns01Solver } from '../../acme/dns01.ts';
import { renewalInfoId } from '../../acme/renewal.ts';
import { createStore } from '../../acme/store.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { problem, startShim } from '../support/acme-shim.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { freshFolder, providerOver, recordedLog } from './support.ts';

let pebble: Pebble;
before(async () => {
  pebble = await startPebble();
});
after(() => pebble?.stop());

const signal = () => AbortSignal.timeout(60_000);

async function behindShim(
  t: TestContext,
  settings: { profile?: string; email?: string; clock?: Clock } = {},
) {
  const shim = await startShim(pebble);
  t.after(shim.stop);
  const { log, lines } = recordedLog();
  const { directoryUrl } = shim;
  const store = await createStore({ stateDir: await freshFolder(t), directoryUrl, log });
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store, log });
  const acme = createAcme({ directoryUrl, caPem: pebble.caPem, store, solver, log, ...settings });
  t.after(acme.close);
  const newOrders = () =>
    shim.requests.filter(({ path }) => path === '/order-plz').map(({ payload }) => payload);
  return { shim, store, acme, lines, newOrders };
}

test('the profile asked for goes into the order when the CA offers it', async (t) => {
  const { shim, acme, newOrders } = await behindShim(t, { profile: 'shortlived' });
  shim.directory = (directory) => ({ ...directory, meta: { profiles: { classic: 'x', shortlived: 'y' } } });
  const { issuer } = await acme.connect(signal());
  await issuer.obtain([parseDomain('profile.example')], signal());
  assert.equal(newOrders()[0]!.profile, 'shortlived');
});

test('a profile that the CA does not offer is left out and reported', async (t) => {
  const { shim, acme, newOrders, lines } = await behindShim(t, { profile: 'toString' });
  shim.directory = (directory) => ({ ...directory, meta: { profiles: { classic: 'x' } } });
  const { issuer } = await acme.connect(signal());
  await issuer.obtain([parseDomain('no-profile.example')], signal());
  assert.equal('profile' in newOrders()[0]!, false);
  assert.ok(lines.some((line) => line.msg === 'profile is not offered by the ca'));
});

const withRenewalInfo = (directory: Record<string, unknown>, base: string) => ({
  ...directory,
  renewalInfo: `${base}/renewal-info`,
});

test('the successor names its predecessor, where the CA takes renewal information', async (t) => {
  const { shim, acme, store, newOrders } = await behindShim(t);
  const names = [parseDomain('successor.example')];
  const { issuer } = await acme.connect(signal());
  const first = await issuer.obtain(names, signal());
  await store.keepCertificate(first);
  const replaces = renewalInfoId(first)!;
  await store.keepCertificate(await issuer.obtain(names, signal(), { replaces }));
  assert.equal('replaces' in newOrders().at(-1)!, false, 'not advertised, not sent');
  shim.directory = withRenewalInfo;
  const other = createAcme({
    directoryUrl: shim.directoryUrl,
    caPem: pebble.caPem,
    store,
    solver: createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store }),
  });
  t.after(other.close);
  const second = await (await other.connect(signal())).issuer.obtain(names, signal(), { replaces });
  assert.equal(newOrders().at(-1)!.replaces, replaces);
  assert.notEqual(second.serial, first.serial);
});

for (const [status, type] of [
  [409, 'alreadyReplaced'],
  [409, 'conflict'],
  [400, 'malformed'],
  // What Let's Encrypt says where the certificate is of another account.
  [403, 'unauthorized'],
] as const) {
  test(`an order refused with ${status} ${type} for what it replaces is placed without`, async (t) => {
    const { shim, acme, newOrders } = await behindShim(t);
    shim.directory = withRenewalInfo;
    shim.intercept = ({ payload }) =>
      payload?.replaces === undefined ? undefined : problem(status, type, 'no');
    const { issuer } = await acme.connect(signal());
    const names = [parseDomain(`${type.toLowerCase()}.example`)];
    const certificate = await issuer.obtain(names, signal(), { replaces: 'AAAA.BBBB' });
    assert.deepEqual(certificate.names, names);
    assert.equal('replaces' in newOrders().at(-1)!, false);
  });
}

test('renewal information is read as the CA gives it, with the delay until the next question', async (t) => {
  const { shim, acme } = await behindShim(t);
  shim.directory = withRenewalInfo;
  const suggestedWindow = { start: '2026-01-02T04:00:00Z', end: '2026-01-03T04:00:00+01:00' };
  shim.intercept = ({ path }) =>
    path.startsWith('/renewal-info/')
      ? {
          status: 200,
          headers: { 'content-type': 'application/json', 'retry-after': '21600' },
          body: JSON.stringify({ suggestedWindow, explanationURL: 'https://ca.example/why' }),
        }
      : undefined;
  const { issuer } = await acme.connect(signal());
  const certificate = await issuer.obtain([parseDomain('ari.example')], signal());
  const info = await acme.renewalInfo(certificate, signal());
  assert.deepEqual(info, {
    start: new Date('2026-01-02T04:00:00Z'),
    end: new Date('2026-01-03T03:00:00Z'),
    explanationUrl: 'https://ca.example/why',
    retryAfterMs: 21_600_000,
  });
  assert.equal(shim.requests.at(-1)!.path, `/renewal-info/${renewalInfoId(certificate)}`);
});

test('a window that ends before it starts is ignored', async (t) => {
  const { shim, acme } = await behindShim(t);
  shim.directory = withRenewalInfo;
  const suggestedWindow = { start: '2026-01-03T04:00:00Z', end: '2026-01-02T04:00:00Z' };
  const { issuer } = await acme.connect(signal());
  const certificate = await issuer.obtain([parseDomain('void.example')], signal());
  shim.intercept = ({ path }) =>
    path.startsWith('/renewal-info/')
      ? {
          status: 200,
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ suggestedWindow }),
        }
      : undefined;
  assert.equal(await acme.renewalInfo(certificate, signal()), undefined);
});

test('a rate limit reaches the caller with its delay, whether in seconds or as a date', async (t) => {
  const { shim, acme } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  const date = new Date(Date.now() + 3_600_000).toUTCString();
  for (const [value, least, most] of [
    ['5', 5000, 5000],
    [date, 3_500_000, 3_600_000],
    ['3000000', 86_400_000, 86_400_000],
  ] as const) {
    shim.intercept = ({ path }) =>
      path === '/order-plz' ? problem(429, 'rateLimited', 'too many', { 'retry-after': value }) : undefined;
    await assert.rejects(issuer.obtain([parseDomain('limited.example')], signal()), (error) => {
      assert.ok(error instanceof AcmeProblem);
      assert.equal(error.type, 'rateLimited');
      assert.ok(error.retryAfterMs! >= least && error.retryAfterMs! <= most);
      return true;
    });
  }
});

test('an order that is being processed is asked for until it is valid', async (t) => {
  const { shim, acme } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  let processing = 2;
  shim.intercept = ({ path }) => {
    const finalized = shim.requests.some((each) => each.path.startsWith('/finalize-order/'));
    if (!path.startsWith('/my-order/') || !finalized || processing === 0) return undefined;
    processing -= 1;
    const order = { status: 'processing', authorizations: [], finalize: `${shim.directoryUrl}/none` };
    return {
      status: 200,
      headers: { 'content-type': 'application/json', 'retry-after': '0', 'replay-nonce': 'AAAA' },
      body: JSON.stringify(order),
    };
  };
  const certificate = await issuer.obtain([parseDomain('slow.example')], signal());
  assert.ok(certificate.serial);
  assert.equal(processing, 0);
});

test('a certificate for other names, or of another key, is refused and the order stays to be looked at again', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  const stranger = await issuer.obtain([parseDomain('stranger.example')], signal());
  shim.intercept = ({ path }) =>
    path.startsWith('/certZ/')
      ? {
          status: 200,
          headers: { 'content-type': 'application/pem-certificate-chain', 'replay-nonce': 'AAAA' },
          body: stranger.chain,
        }
      : undefined;
  const name = parseDomain('victim.example');
  await assert.rejects(issuer.obtain([name], signal()), {
    code: 'certificate-unfit',
    message: /key is not that of/,
  });
  shim.intercept = () => undefined;
  const orders = pebble.made('order');
  const certificate = await issuer.obtain([name], signal());
  assert.deepEqual(certificate.names, [name]);
  assert.equal(pebble.made('order'), orders, 'the same order');
  assert.ok(await store.readOrder(name));
});

test('an order whose certificate could not be had for a day is given up for a new one', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  shim.intercept = ({ path }) =>
    path.startsWith('/certZ/')
      ? { status: 200, headers: { 'content-type': 'text/html' }, body: '' }
      : undefined;
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('stuck.example');
  const orders = pebble.made('order');
  for (const _ of ['at once', 'again']) await assert.rejects(issuer.obtain([name], signal()));
  assert.equal(pebble.made('order'), orders + 1);
  const stored = await store.readOrder(name);
  const yesterday = new Date(Date.now() - 25 * 3_600_000).toISOString();
  await store.writeOrder(name, { ...stored!, createdAt: yesterday });
  shim.intercept = () => undefined;
  assert.deepEqual((await issuer.obtain([name], signal())).names, [name]);
  assert.equal(pebble.made('order'), orders + 2);
});

test('an order that became invalid is replaced by a new one at the next attempt', async (t) => {
  const { acme, store } = await behindShim(t);
  const name = parseDomain('invalid.example');
  const solver = {
    type: 'dns-01' as const,
    present: async () => {},
    wait: async () => {},
    cleanUp: async () => {},
  };
  const broken = createAcme({
    directoryUrl: acme.transport.directoryUrl,
    caPem: pebble.caPem,
    store,
    solver,
  });
  t.after(broken.close);
  const orders = pebble.made('order');
  await assert.rejects((await broken.connect(signal())).issuer.obtain([name], signal()), {
    code: 'authorization-failed',
  });
  const certificate = await (await acme.connect(signal())).issuer.obtain([name], signal());
  assert.deepEqual(certificate.names, [name]);
  assert.equal(pebble.made('order'), orders + 2);
});

test('a valid authorization is not proven again', async (t) => {
  const reusing = await startPebble({ authzReusePercent: 100 });
  t.after(reusing.stop);
  const store = await createStore({ stateDir: await freshFolder(t), directoryUrl: reusing.directoryUrl });
  let presented = 0;
  const dns = createDns01Solver({ provider: providerOver(reusing.dns), wait: async () => {}, store });
  const solver = {
    ...dns,
    async present(challenge: Parameters<typeof dns.present>[0]) {
      presented += 1;
      await dns.present(challenge);
    },
  };
  const acme = createAcme({ directoryUrl: reusing.directoryUrl, caPem: reusing.caPem, store, solver });
  t.after(acme.close);
  const { issuer } = await acme.connect(signal());
  const names = [parseDomain('again.example')];
  await store.keepCertificate(await issuer.obtain(names, signal()));
  await store.keepCertificate(await issuer.obtain(names, signal()));
  assert.equal(presented, 1);
});

test('a CA that never finishes is given up on at the deadline', async (t) => {
  const { shim, store } = await behindShim(t);
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store });
  const acme = createAcme({
    directoryUrl: shim.directoryUrl,
    caPem: pebble.caPem,
    store,
    solver,
    deadlineMs: 1500,
  });
  t.after(acme.close);
  const { issuer } = await acme.connect(signal());
  shim.intercept = ({ path, payload }) => {
    if (!path.startsWith('/my-order/') || payload !== undefined) return undefined;
    const order = { status: 'processing', authorizations: [], finalize: `${shim.directoryUrl}/none` };
    return {
      status: 200,
      headers: { 'content-type': 'application/json', 'retry-after': '3000000', 'replay-nonce': 'AAAA' },
      body: JSON.stringify(order),
    };
  };
  await assert.rejects(issuer.obtain([parseDomain('never.example')], signal()), { code: 'deadline-passed' });
  assert.deepEqual(pebble.dns.txt('_acme-challenge.never.example'), []);
});

/** Pebble's answers as JSON, changed. */
function rewriting(change: (path: string, body: Record<string, unknown>) => void) {
  return ({ path }: { path: string }, text: string): string => {
    if (!text.startsWith('{')) return text;
    const body = JSON.parse(text) as Record<string, unknown>;
    change(path, body);
    return JSON.stringify(body);
  };
}

const finalizes = ({ requests }: { requests: readonly { path: string }[] }) =>
  requests.filter(({ path }) => path.startsWith('/finalize-order/')).length;

for (const [how, reply] of [
  ['refused with orderNotReady', problem(403, 'orderNotReady', 'not yet', { 'replay-nonce': 'AAAA' })],
  [
    'answered with an order still ready',
    {
      status: 200,
      headers: { 'content-type': 'application/json', 'replay-nonce': 'AAAA' },
      body: JSON.stringify({ status: 'ready', authorizations: [], finalize: 'https://ca.example/f' }),
    },
  ],
] as const) {
  test(`a finalize that is ${how} is sent again once the order is found ready`, async (t) => {
    const { shim, acme } = await behindShim(t);
    const { issuer } = await acme.connect(signal());
    let left = 2;
    shim.intercept = ({ path }) => {
      if (!path.startsWith('/finalize-order/') || left === 0) return undefined;
      left -= 1;
      return reply;
    };
    const name = parseDomain('not-ready.example');
    assert.deepEqual((await issuer.obtain([name], signal())).names, [name]);
    assert.equal(left, 0);
    assert.ok(finalizes(shim) >= 3);
  });
}

test('an order that is never finalized is left with a word after ten attempts, not polled till the deadline', async (t) => {
  const { shim, store } = await behindShim(t);
  const clock = { now: () => new Date(), sleep: async () => {} };
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store });
  const { directoryUrl } = shim;
  const acme = createAcme({ directoryUrl, caPem: pebble.caPem, store, solver, clock });
  t.after(acme.close);
  const { issuer } = await acme.connect(signal());
  shim.intercept = ({ path }) =>
    path.startsWith('/finalize-order/')
      ? problem(403, 'orderNotReady', 'never', { 'replay-nonce': 'AAAA' })
      : undefined;
  const name = parseDomain('never-ready.example');
  await assert.rejects(issuer.obtain([name], signal()), { code: 'order-unfinished', message: /still ready/ });
  assert.equal(finalizes(shim), 10);
  assert.ok(await store.readOrder(name), 'the next attempt goes on with it');
});

test('null for what is optional or of no use any more, and unused challenges without status, are understood', async (t) => {
  const { shim, acme } = await behindShim(t);
  shim.directory = (directory) => ({ ...directory, keyChange: null, renewalInfo: null, meta: null });
  shim.rewrite = rewriting((path, body) => {
    if (path === '/sign-me-up') body.status = null;
    if (!path.startsWith('/my-order/') && !path.startsWith('/authZ/') && path !== '/order-plz') return;
    for (const field of ['expires', 'error', 'notBefore', 'notAfter', 'certificate', 'wildcard'])
      body[field] ??= null;
    if (body.status === 'valid') {
      body.authorizations = null;
      delete body.finalize;
    }
    for (const challenge of (body.challenges as Record<string, unknown>[] | undefined) ?? []) {
      challenge.error ??= null;
      if (challenge.type !== 'dns-01')
        for (const field of ['status', 'url', 'token']) delete challenge[field];
    }
  });
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('nulls.example');
  assert.deepEqual((await issuer.obtain([name], signal())).names, [name]);
});

test('an order that is not understood is asked about again, not made again, and given up after a day', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('unclear.example');
  const orders = pebble.made('order');
  shim.rewrite = rewriting((path, body) => {
    if (path === '/order-plz' || path.startsWith('/my-order/')) body.status = 'under way';
  });
  for (const _ of ['at once', 'again']) {
    await assert.rejects(issuer.obtain([name], signal()), { code: 'ca-unintelligible', message: /status/ });
  }
  assert.equal(pebble.made('order'), orders + 1);
  const stored = await store.readOrder(name);
  const yesterday = new Date(Date.now() - 25 * 3_600_000).toISOString();
  await store.writeOrder(name, { ...stored!, createdAt: yesterday });
  await assert.rejects(issuer.obtain([name], signal()), { code: 'ca-unintelligible' });
  assert.equal(pebble.made('order'), orders + 2);
  shim.rewrite = (_, body) => body;
  assert.deepEqual((await issuer.obtain([name], signal())).names, [name]);
  assert.equal(pebble.made('order'), orders + 2);
});

test('an order noted by a clock that was twenty days ahead is given up as well', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('ahead.example');
  const orders = pebble.made('order');
  shim.intercept = ({ path }) =>
    path.startsWith('/certZ/')
      ? { status: 200, headers: { 'content-type': 'text/html' }, body: '' }
      : undefined;
  await assert.rejects(issuer.obtain([name], signal()));
  const stored = await store.readOrder(name);
  const ahead = new Date(Date.now() + 20 * 24 * 3_600_000).toISOString();
  await store.writeOrder(name, { ...stored!, createdAt: ahead });
  shim.intercept = () => undefined;
  await issuer.obtain([name], signal());
  assert.equal(pebble.made('order'), orders + 2);
});

test('nonces refused without end say nothing of the stored order, which is kept', async (t) => {
  const clock = { now: () => new Date(), sleep: async () => {} };
  const { shim, acme, store } = await behindShim(t, { clock });
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('nonces.example');
  shim.intercept = ({ path }) =>
    path.startsWith('/finalize-order/') ? problem(500, 'serverInternal', 'down') : undefined;
  await assert.rejects(issuer.obtain([name], signal()));
  const stored = await store.readOrder(name);
  shim.intercept = ({ method }) =>
    method === 'POST' ? problem(400, 'badNonce', 'never', { 'replay-nonce': 'AAAA' }) : undefined;
  await assert.rejects(issuer.obtain([name], signal()), { type: 'badNonce' });
  assert.deepEqual(await store.readOrder(name), stored);
});

test('Retry-After of a challenge, an authorization, an order and a finalize is slept in full', async (t) => {
  const { shim, store } = await behindShim(t);
  const slept: number[] = [];
  const clock = { now: () => new Date(), sleep: async (ms: number) => void slept.push(ms) };
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store });
  const { directoryUrl } = shim;
  const acme = createAcme({ directoryUrl, caPem: pebble.caPem, store, solver, clock });
  t.after(acme.close);
  const { issuer } = await acme.connect(signal());
  const asked = new Set<string>();
  const delays = { '/chalZ/': 61, '/authZ/': 62, '/finalize-order/': 63, '/my-order/': 64 };
  shim.reheader = ({ path, payload }) => {
    const [kind, seconds] = Object.entries(delays).find(([start]) => path.startsWith(start)) ?? [];
    // An authorization is read before it is answered; only then is there something to wait for.
    const early = kind === '/authZ/' && !asked.has('/chalZ/');
    if (kind === undefined || early || (kind === '/my-order/' && payload !== undefined)) return {};
    asked.add(kind);
    return { 'retry-after': String(seconds) };
  };
  let left = 1;
  shim.rewrite = rewriting((path, body) => {
    if (path.startsWith('/my-order/') && body.status === 'valid' && left-- > 0) body.status = 'processing';
  });
  await issuer.obtain([parseDomain('asked.example')], signal());
  for (const ms of [61_000, 63_000, 64_000]) assert.ok(slept.includes(ms), `${ms} in ${slept}`);
});

test('a wait that the CA asks for and that is longer than the attempt ends it at once, with that wait', async (t) => {
  const { shim, acme } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  shim.reheader = ({ path }) =>
    path.startsWith('/my-order/') ? { 'retry-after': '7200' } : ({} as Record<string, string>);
  shim.rewrite = rewriting((path, body) => {
    if (path.startsWith('/my-order/')) body.status = 'processing';
  });
  await assert.rejects(issuer.obtain([parseDomain('later.example')], signal()), {
    code: 'deadline-passed',
    retryAfterMs: 7_200_000,
  });
});

test('a contact that the CA refuses does not cost the account: it is made without, and the log says so', async (t) => {
  for (const type of ['invalidContact', 'unsupportedContact']) {
    const { shim, acme, lines, store } = await behindShim(t, { email: 'ops@example.com' });
    shim.intercept = ({ payload }) =>
      payload?.contact === undefined ? undefined : problem(400, type, 'forbidden domain');
    const { account } = await acme.connect(signal());
    assert.equal((await store.readAccount())?.url, account.url);
    const line = lines.find(
      ({ msg }) => msg === 'the ca refused the contact, the account is made without one',
    );
    assert.equal(line?.variable, 'ACME_EMAIL');
    assert.match(JSON.stringify(line?.err), /forbidden domain/);
  }
});

test('a CA that refuses to look up a key just made still gives an account', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  shim.intercept = ({ payload }) =>
    payload?.onlyReturnExisting === true ? problem(400, 'malformed', 'no such parameter') : undefined;
  const { account } = await acme.connect(signal());
  assert.equal((await store.readAccount())?.url, account.url);
  assert.equal(shim.requests.filter(({ payload }) => payload?.onlyReturnExisting === true).length, 0);
});

test('a derived key is looked up first, and made an account of where the CA will not look', async (t) => {
  const { shim, acme: _, store } = await behindShim(t);
  const key = generateKey();
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store });
  const { directoryUrl } = shim;
  const settings = { directoryUrl, caPem: pebble.caPem, store, solver, accountKey: async () => key };
  const acme = createAcme(settings);
  t.after(acme.close);
  shim.intercept = ({ payload }) =>
    payload?.onlyReturnExisting === true ? problem(400, 'malformed', 'no such parameter') : undefined;
  await acme.connect(signal());
  const asked = shim.requests.filter(({ path }) => path === '/sign-me-up').map(({ payload }) => payload);
  assert.ok(asked.length >= 2);
  assert.equal(asked[0]!.onlyReturnExisting, true);
  assert.equal(asked.at(-1)!.termsOfServiceAgreed, true);
});

test('an order whose validation was lost when its attempt was interrupted is replaced in the next attempt, not after it', async (t) => {
  const { shim, acme, store } = await behindShim(t);
  const { issuer } = await acme.connect(signal());
  const name = parseDomain('interrupted.example');
  const orders = pebble.made('order');
  const invalid = () => pebble.log().split('set INVALID').length;
  const before = invalid();
  const stopping = new AbortController();
  shim.intercept = async ({ path }) => {
    // The record is gone before the CA looks, and we are stopped before we ask what it saw.
    if (path.startsWith('/chalZ/')) await pebble.dns.clearTxt('_acme-challenge.interrupted.example');
    const answered = shim.requests.some((each) => each.path.startsWith('/chalZ/'));
    if (answered && path.startsWith('/authZ/')) stopping.abort(new Error('we are stopping'));
    return undefined;
  };
  await assert.rejects(issuer.obtain([name], stopping.signal), /stopping/);
  shim.intercept = () => undefined;
  assert.ok(await store.readOrder(name));
  while (invalid() === before) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual((await issuer.obtain([name], signal())).names, [name]);
  assert.equal(pebble.made('order'), orders + 2);
});
