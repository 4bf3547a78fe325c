// The loop: what it orders, when, how it waits, and that nothing takes down what serves.

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import type { Account } from '../../acme/account.ts';
import { AcmeProblem } from '../../acme/answer.ts';
import { type CaConnection, createManager, type ManagerOptions } from '../../acme/manager.ts';
import { createStore, type Store } from '../../acme/store.ts';
import { type Certificate, readCertificate } from '../../src/lib/certificate.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { type Domain, parseDomain } from '../../src/lib/domain.ts';
import { freshFolder, recordedLog } from './support.ts';

const MINUTE = 60_000;
const DAY = 86_400_000;
const START = new Date('2026-01-01T00:00:00Z');
const a = parseDomain('a.example');
const b = parseDomain('b.example');

/** Time passes only when the test says so. `idle` resolves when a part sleeps, to the end of that sleep. */
function standingClock(): Clock & {
  idle(): Promise<number>;
  goTo(ms: number): void;
  setBack(ms: number): void;
} {
  let nowMs = START.getTime();
  let setBackMs = 0;
  let sleeper: { until: number; wake: () => void } | undefined;
  let onSleep: (() => void) | undefined;
  return {
    now: () => new Date(nowMs),
    monotonicMs: () => nowMs + setBackMs,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const until = nowMs + ms;
        const clear = (finish: () => void) => () => {
          sleeper = undefined;
          finish();
        };
        sleeper = { until, wake: clear(resolve) };
        if (signal?.aborted) return clear(() => reject(signal.reason))();
        signal?.addEventListener(
          'abort',
          clear(() => reject(signal.reason)),
          { once: true },
        );
        onSleep?.();
      }),
    async idle() {
      if (sleeper === undefined) {
        await new Promise<void>((resolve) => {
          onSleep = resolve;
        });
      }
      onSleep = undefined;
      return sleeper!.until - START.getTime();
    },
    goTo(ms) {
      nowMs = START.getTime() + ms;
      sleeper?.wake();
    },
    /** Sets the date alone, and wakes sleepers so that they see it. */
    setBack(ms) {
      nowMs -= ms;
      setBackMs += ms;
      sleeper?.wake();
    },
  };
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
let serial = 0;
async function newCertificate(names: readonly Domain[], from: Date, lifeMs = 90 * DAY): Promise<Certificate> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  serial += 1;
  const made = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serial.toString(16).padStart(4, '1'),
      name: 'CN=Test',
      notBefore: from,
      notAfter: new Date(from.getTime() + lifeMs),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns' as const, value }))),
      ],
    },
    webcrypto,
  );
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`;
  return readCertificate(made.toString('pem'), key);
}

interface Stage {
  readonly manager: ReturnType<typeof createManager>;
  readonly clock: ReturnType<typeof standingClock>;
  readonly store: Store;
  readonly lines: readonly Record<string, unknown>[];
  /** First names ordered, each with the time since the start. */
  readonly orders: [Domain, number][];
  readonly deployed: (readonly Certificate[])[];
  connects: number;
  prepares: number;
  /** May reject to refuse. */
  obtain: (names: readonly Domain[]) => Promise<Certificate>;
  deploy: () => void;
  start(): void;
  stop(): Promise<void>;
}

async function stage(
  t: TestContext,
  options: Partial<ManagerOptions> & { stateDir?: string } = {},
): Promise<Stage> {
  const clock = standingClock();
  const { log, lines } = recordedLog();
  const stateDir = options.stateDir ?? (await freshFolder(t));
  const store = await createStore({ stateDir, directoryUrl: 'https://ca.example/dir', log, clock });
  const account = {
    url: 'https://ca.example/1',
    document: { body: {}, uri: 'https://ca.example/1' },
  } as Account;
  const stopping = new AbortController();
  let running: Promise<void> | undefined;
  const connection: CaConnection = {
    account,
    issuer: {
      async obtain(names) {
        self.orders.push([names[0]!, clock.now().getTime() - START.getTime()]);
        return self.obtain(names);
      },
    },
  };
  const manager = createManager({
    wanted: [[a]],
    store,
    async connect() {
      self.connects += 1;
      return connection;
    },
    async prepare() {
      self.prepares += 1;
    },
    async deploy(certificates) {
      self.deploy();
      self.deployed.push(certificates);
    },
    intervalMs: 12 * 60 * MINUTE,
    clock,
    log,
    random: () => 0,
    ...options,
  });
  const self: Stage = {
    manager,
    clock,
    store,
    lines,
    orders: [],
    deployed: [],
    connects: 0,
    prepares: 0,
    obtain: (names) => newCertificate(names, clock.now()),
    deploy: () => {},
    start() {
      running = manager.run(stopping.signal);
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
  t.after(self.stop);
  return self;
}

/** Lets time pass, one sleep after the other, until `endMs` after the start. */
async function pass(clock: Stage['clock'], endMs: number): Promise<void> {
  for (let until = await clock.idle(); until <= endMs; until = await clock.idle()) clock.goTo(until);
}

const minutesOf = (orders: Stage['orders']) => orders.map(([, ms]) => Math.round(ms / MINUTE));

test('a failing CA is asked at 0, 1, 11 and 111 minutes, then daily, and the old certificate stays', async (t) => {
  const s = await stage(t);
  const old = await newCertificate([a], new Date(START.getTime() - 70 * DAY));
  await s.store.keepCertificate(old);
  s.obtain = () =>
    Promise.reject(
      new AcmeProblem('x', {
        type: 'serverInternal',
        status: 500,
        detail: 'x',
        subproblems: [],
        retryAfterMs: undefined,
      }),
    );
  assert.deepEqual(
    (await s.manager.load()).map((each) => each.sha256),
    [old.sha256],
  );
  s.start();
  await pass(s.clock, 2.5 * DAY);
  assert.deepEqual(minutesOf(s.orders), [0, 1, 11, 111, 111 + 1440, 111 + 2880]);
  assert.equal(s.deployed.length, 0);
  assert.equal(s.manager.status()[0]!.failure?.count, 6);
});

test('the back-off survives restarts: twenty starts in a minute make one order', async (t) => {
  const stateDir = await freshFolder(t);
  let orders = 0;
  for (let start = 0; start < 20; start += 1) {
    const s = await stage(t, { stateDir });
    s.obtain = () => Promise.reject(new Error('refused'));
    await s.manager.load();
    s.start();
    await s.clock.idle();
    await s.stop();
    orders += s.orders.length;
  }
  assert.equal(orders, 1);
});

test('a rate limit is waited out as the CA says, not as we would', async (t) => {
  const s = await stage(t);
  const limited = (retryAfterMs: number) =>
    new AcmeProblem('x', { type: 'rateLimited', status: 429, detail: 'x', subproblems: [], retryAfterMs });
  s.obtain = () => Promise.reject(limited(34 * MINUTE));
  s.start();
  await pass(s.clock, 40 * MINUTE);
  assert.deepEqual(minutesOf(s.orders), [0, 34]);
});

test('one certificate that fails does not hold up another', async (t) => {
  const s = await stage(t, { wanted: [[a], [b]], parallel: 1 });
  s.obtain = ([name]) => (name === a ? Promise.reject(new Error('no')) : newCertificate([b], START));
  s.start();
  await s.clock.idle();
  assert.deepEqual(
    s.deployed.map((all) => all.map((each) => each.names[0])),
    [[b]],
  );
});

test('a start with everything in order touches neither CA nor DNS and changes no file', async (t) => {
  const s = await stage(t, { wanted: [[a], [b]] });
  await s.store.writeAccount({ key: 'k', url: 'https://ca.example/1' });
  for (const name of [a, b]) await s.store.keepCertificate(await newCertificate([name], START));
  await s.manager.load();
  s.start();
  const until = await s.clock.idle();
  assert.equal(until, 12 * 60 * MINUTE);
  assert.deepEqual([s.connects, s.prepares, s.orders.length, s.deployed.length], [0, 0, 0, 0]);
  assert.deepEqual(await s.store.readLedger(), {});
});

test('the account on disk is announced at load, before the CA is asked', async (t) => {
  const uris: string[] = [];
  const s = await stage(t, { onAccount: ({ uri }) => uris.push(uri) });
  await s.store.writeAccount({ key: 'k', url: 'https://ca.example/acct/9' });
  await s.manager.load();
  assert.deepEqual(uris, ['https://ca.example/acct/9']);
});

test('an account whose key was replaced on disk is announced at the next pass', async (t) => {
  const keys: unknown[] = [];
  const s = await stage(t, { onAccount: ({ body }) => keys.push(body.key?.x) });
  const url = 'https://ca.example/acct/9';
  await s.store.keepCertificate(await newCertificate([a], START));
  await s.store.writeAccount({ key: 'k', url, publicKey: { kty: 'EC', x: 'before' } });
  await s.manager.load();
  s.start();
  await s.clock.idle();
  await s.store.writeAccount({ key: 'l', url, publicKey: { kty: 'EC', x: 'after' } });
  await pass(s.clock, DAY);
  assert.equal(keys[0], 'before');
  assert.equal(keys.at(-1), 'after');
});

test('a certificate is renewed at its moment, not at the next pass after it', async (t) => {
  const s = await stage(t, { intervalMs: 7 * DAY });
  await s.store.keepCertificate({ ...(await newCertificate([a], START)) });
  await s.manager.load();
  s.start();
  const due = s.manager.status()[0]!;
  await pass(s.clock, 61 * DAY);
  const next = due.next ?? s.manager.status()[0]!.next!;
  assert.ok(next);
  assert.equal(s.orders.length, 1);
  const days = s.orders[0]![1] / DAY;
  assert.ok(days > 58.1 && days <= 60, `${days}`);
  assert.ok(Math.abs(days % 7) > 0.001, 'not on the raster of the passes');
});

test('an expired certificate is loaded, serves, and is renewed at once', async (t) => {
  const s = await stage(t);
  await s.store.keepCertificate(await newCertificate([a], new Date(START.getTime() - 100 * DAY)));
  assert.equal((await s.manager.load()).length, 1);
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 1);
});

test('certificates of names no longer wanted are neither served nor renewed nor deleted', async (t) => {
  const s = await stage(t);
  await s.store.keepCertificate(await newCertificate([b], new Date(START.getTime() - 100 * DAY)));
  assert.deepEqual(await s.manager.load(), []);
  s.start();
  await s.clock.idle();
  assert.deepEqual(
    s.orders.map(([name]) => name),
    [a],
  );
  assert.deepEqual(
    s.deployed.at(-1)!.map((each) => each.names[0]),
    [a],
  );
  assert.equal((await s.store.readCertificates()).length, 2);
});

test('names added to a certificate make it due, and the old one serves until then', async (t) => {
  const s = await stage(t, { wanted: [[a, b]] });
  const old = await newCertificate([a], START);
  await s.store.keepCertificate(old);
  assert.deepEqual(
    (await s.manager.load()).map((each) => each.sha256),
    [old.sha256],
  );
  s.start();
  await s.clock.idle();
  assert.deepEqual(s.deployed[0]![0]!.names, [a, b]);
});

test('the same names in another order are the same certificate', async (t) => {
  const s = await stage(t, { wanted: [[b, a]] });
  await s.store.keepCertificate(await newCertificate([a, b], START));
  assert.equal((await s.manager.load()).length, 1);
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 0);
});

test('a certificate that cannot be deployed leaves the old one in place and on disk, and is tried again', async (t) => {
  const s = await stage(t);
  const old = await newCertificate([a], new Date(START.getTime() - 70 * DAY));
  await s.store.keepCertificate(old);
  s.deploy = () => {
    throw new Error('does not load');
  };
  await s.manager.load();
  s.start();
  await s.clock.idle();
  assert.equal(s.manager.status()[0]!.certificate?.sha256, old.sha256);
  assert.equal((await s.store.readCertificates())[0]!.sha256, old.sha256);
  s.deploy = () => {};
  s.clock.goTo(await s.clock.idle());
  await s.clock.idle();
  assert.notEqual(s.manager.status()[0]!.certificate?.sha256, old.sha256);
  assert.equal((await s.store.readCertificates())[0]!.sha256, s.deployed[0]![0]!.sha256);
});

test('a certificate that the disk will not take serves, and is stored as soon as it can be', async (t) => {
  const s = await stage(t);
  const keep = s.store.keepCertificate;
  let full = true;
  s.store.keepCertificate = (certificate) =>
    full ? Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' })) : keep(certificate);
  s.start();
  assert.equal(await s.clock.idle(), MINUTE);
  assert.equal(s.deployed.length, 1);
  assert.deepEqual(await s.store.readCertificates(), []);
  full = false;
  s.clock.goTo(MINUTE);
  await s.clock.idle();
  assert.equal((await s.store.readCertificates())[0]!.sha256, s.deployed[0]![0]!.sha256);
  assert.equal(s.orders.length, 1);
});

test('without a ledger on disk nothing is ordered', async (t) => {
  const s = await stage(t);
  s.store.writeLedger = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
  s.start();
  await pass(s.clock, 60 * MINUTE);
  assert.equal(s.orders.length, 0);
  assert.ok(s.lines.some((line) => line.msg === 'failure could not be noted on disk'));
});

test('records that cannot be made stop the orders of that pass, are noted, and cost no back-off of the CA', async (t) => {
  let broken = true;
  const s = await stage(t, {
    async prepare() {
      if (broken) throw new Error('dns is down');
    },
  });
  s.start();
  await pass(s.clock, 2 * MINUTE);
  assert.equal(s.orders.length, 0);
  const noted = (await s.store.readLedger())[a];
  assert.deepEqual([noted?.failures, noted?.crashes, noted?.reason], [0, 0, 'dns is down']);
  broken = false;
  await pass(s.clock, 10 * MINUTE);
  assert.equal(s.orders.length, 1);
  assert.equal((await s.store.readLedger())[a]?.failedAt, undefined);
});

test('records of one domain that cannot be made do not hold up another', async (t) => {
  const s = await stage(t, {
    wanted: [[a], [b]],
    async prepare(_account, names) {
      if (names.includes(a)) throw new Error(`${a} is not ours`);
    },
  });
  s.start();
  await s.clock.idle();
  assert.deepEqual(
    s.orders.map(([name]) => name),
    [b],
  );
  assert.match((await s.store.readLedger())[a]!.reason, /not ours/);
});

test('an account that cannot be had is noted for every certificate that waits for it', async (t) => {
  const s = await stage(t, {
    wanted: [[a], [b]],
    connect: () => Promise.reject(new Error('the account is gone')),
  });
  s.start();
  await s.clock.idle();
  const ledger = await s.store.readLedger();
  assert.deepEqual([ledger[a]?.reason, ledger[b]?.reason], ['the account is gone', 'the account is gone']);
});

test('an expired certificate that cannot be renewed wakes us when it is to be tried again, and not before', async (t) => {
  let asked = 0;
  const s = await stage(t, {
    async renewalInfo() {
      asked += 1;
      return undefined;
    },
  });
  await s.store.keepCertificate(await newCertificate([a], new Date(START.getTime() - 91 * DAY)));
  s.obtain = () => Promise.reject(new Error('the CA is down'));
  await s.manager.load();
  s.start();
  for (const minutes of [1, 11, 111]) {
    const until = await s.clock.idle();
    assert.equal(Math.round(until / MINUTE), minutes);
    s.clock.goTo(until);
  }
  await s.clock.idle();
  assert.equal(asked, 0);
});

test('a certificate that has few days left is tried for more often than daily', async (t) => {
  const s = await stage(t);
  const life = 160 * 60 * MINUTE;
  await s.store.keepCertificate(await newCertificate([a], new Date(START.getTime() - life / 2), life));
  s.obtain = () => Promise.reject(new Error('the CA refuses'));
  await s.manager.load();
  s.start();
  await pass(s.clock, life / 2);
  assert.ok(s.orders.length >= 16, `${s.orders.length} attempts`);
  const inAnHour = s.orders.map(
    ([, ms]) => s.orders.filter(([, at]) => at >= ms && at < ms + 60 * MINUTE).length,
  );
  assert.ok(Math.max(...inAnHour) <= 4, 'fewer than the CA allows to fail');
});

test('renewing on demand renews everything once, even what has just failed', async (t) => {
  const s = await stage(t, { wanted: [[a], [b]] });
  let failing = true;
  s.obtain = (names) =>
    failing && names[0] === a ? Promise.reject(new Error('no')) : newCertificate(names, START);
  s.start();
  await s.clock.idle();
  failing = false;
  s.manager.renewNow();
  while (s.orders.length < 4) await new Promise((resolve) => setTimeout(resolve, 5));
  await s.clock.idle();
  assert.deepEqual(s.orders.map(([name]) => name).sort(), [a, a, b, b]);
});

test('a CA whose certificates are due as soon as they are made is not asked without end', async (t) => {
  const s = await stage(t);
  s.obtain = (names) => newCertificate(names, new Date(START.getTime() - 85 * DAY));
  s.start();
  await pass(s.clock, 180 * MINUTE);
  assert.ok(s.orders.length <= 4, `${s.orders.length} orders in three hours`);
});

test('the chosen moment of a suggested window is kept across restarts while the window stands', async (t) => {
  const stateDir = await freshFolder(t);
  const window = { start: new Date(START.getTime() + 5 * DAY), end: new Date(START.getTime() + 6 * DAY) };
  const renewalInfo = async ({ notBefore }: Certificate) =>
    +notBefore === +START ? { ...window, explanationUrl: undefined, retryAfterMs: undefined } : undefined;
  const moments: (number | undefined)[] = [];
  for (const random of [0.25, 0.75]) {
    const s = await stage(t, { stateDir, renewalInfo, random: () => random });
    if (moments.length === 0) await s.store.keepCertificate(await newCertificate([a], START));
    await s.manager.load();
    s.start();
    await s.clock.idle();
    moments.push(s.manager.status()[0]!.next?.at.getTime());
    await s.stop();
  }
  assert.deepEqual(moments, [window.start.getTime() + DAY / 4, window.start.getTime() + DAY / 4]);
  window.start = new Date(START.getTime() + 2 * DAY);
  const s = await stage(t, { stateDir, renewalInfo, random: () => 0.5 });
  await s.manager.load();
  s.start();
  await s.clock.idle();
  assert.equal(s.manager.status()[0]!.next?.at.getTime(), START.getTime() + 4 * DAY);
  await pass(s.clock, 5 * DAY);
  assert.deepEqual(s.orders, [[a, 4 * DAY]]);
});

test('a CA that suggests "now" for every certificate does not get more orders than its limits allow', async (t) => {
  const always = { start: new Date(0), end: new Date(1), explanationUrl: undefined, retryAfterMs: undefined };
  const s = await stage(t, { renewalInfo: async () => always });
  s.start();
  await pass(s.clock, 7 * DAY);
  assert.ok(s.orders.length >= 2 && s.orders.length <= 6, `${s.orders.length} orders in a week`);
});

test('renewal information that cannot be had never delays a renewal', async (t) => {
  const s = await stage(t, { renewalInfo: () => Promise.reject(new Error('500')) });
  await s.store.keepCertificate(await newCertificate([a], new Date(START.getTime() - 61 * DAY)));
  await s.manager.load();
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 1);
});

test('a certificate that another process renewed is taken from disk instead of ordered', async (t) => {
  const s = await stage(t);
  await s.store.keepCertificate(await newCertificate([a], new Date(START.getTime() - 61 * DAY)));
  await s.manager.load();
  const theirs = await newCertificate([a], START);
  await s.store.keepCertificate(theirs);
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 0);
  assert.deepEqual(
    s.deployed.map((all) => all[0]!.sha256),
    [theirs.sha256],
  );
});

test('being asked to stop in the middle is no failure', async (t) => {
  const s = await stage(t);
  const begun = Promise.withResolvers<void>();
  s.obtain = () => {
    begun.resolve();
    return new Promise((_, reject) => setTimeout(() => reject(new Error('aborted')), 50));
  };
  s.start();
  await begun.promise;
  await s.stop();
  assert.deepEqual(await s.store.readLedger(), {});
});

test('a damaged ledger does not stop renewals, and is not lost', async (t) => {
  const s = await stage(t);
  await writeFile(join(s.store.folder, 'ledger.json'), 'x');
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 1);
  const aside = s.lines.find((line) => line.msg === 'damaged state file set aside')!.aside as string;
  assert.equal(await readFile(aside, 'utf8'), 'x');
});

test('each change of state is one line with the domain, the reason and the next time', async (t) => {
  const s = await stage(t);
  s.start();
  await s.clock.idle();
  await pass(s.clock, 5 * DAY);
  const told = s.lines.filter((line) => line.level !== 'debug' && line.level !== 'trace');
  assert.deepEqual(
    told.map((line) => line.msg),
    ['certificate due', 'certificate obtained', 'renewal planned'],
  );
  assert.deepEqual([told[0]!.domain, told[0]!.reason], [a, 'no certificate yet']);
  assert.ok(told[1]!.next && told[2]!.next && told[2]!.reason);
});

test('an attempt that failed while the clock was twenty days ahead holds up nothing once it is right', async (t) => {
  const stateDir = await freshFolder(t);
  const ahead = await stage(t, { stateDir });
  ahead.clock.goTo(20 * DAY);
  ahead.obtain = () => Promise.reject(new Error('the certificate of the CA is not valid'));
  ahead.start();
  await ahead.clock.idle();
  await ahead.stop();
  assert.equal(ahead.orders.length, 1);
  const s = await stage(t, { stateDir });
  s.start();
  await s.clock.idle();
  assert.deepEqual(minutesOf(s.orders), [0]);
});

test('a clock that is set back twenty days while we run neither stops attempts nor questions about the window', async (t) => {
  let asked = 0;
  const s = await stage(t, {
    renewalInfo: async () => {
      asked += 1;
      return undefined;
    },
    wanted: [[a], [b]],
  });
  await s.store.keepCertificate(await newCertificate([b], new Date(START.getTime() + 19 * DAY)));
  s.obtain = () => Promise.reject(new Error('no'));
  await s.manager.load();
  s.clock.goTo(20 * DAY);
  s.start();
  await s.clock.idle();
  assert.deepEqual([s.orders.length, asked], [1, 1]);
  s.clock.setBack(20 * DAY);
  await s.clock.idle();
  assert.equal(s.orders.length, 2, 'at once, and not in twenty days');
  await pass(s.clock, 7 * 60 * MINUTE);
  assert.equal(asked, 2, 'six hours later');
});

test('renewing on demand is not forgotten when it is refused once: it is tried at the time that the log names', async (t) => {
  const s = await stage(t);
  await s.store.keepCertificate(await newCertificate([a], START));
  await s.manager.load();
  s.start();
  await s.clock.idle();
  s.obtain = () => Promise.reject(new Error('no'));
  s.manager.renewNow();
  while (s.orders.length < 1) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await s.clock.idle(), MINUTE);
  const told = s.lines.find((line) => line.msg === 'certificate not obtained')!;
  assert.equal(Date.parse(told.next as string), START.getTime() + MINUTE);
  assert.deepEqual(s.manager.asked(), [a]);
  s.obtain = (names) => newCertificate(names, s.clock.now());
  await pass(s.clock, 5 * MINUTE);
  assert.deepEqual(minutesOf(s.orders), [0, 1]);
  assert.deepEqual(s.manager.asked(), []);
});

test('a CA that wants to be left alone before it gives an account is, across restarts as well', async (t) => {
  const stateDir = await freshFolder(t);
  const busy = new AcmeProblem('POST /new-account', {
    type: 'rateLimited',
    status: 429,
    detail: 'too many registrations',
    subproblems: [],
    retryAfterMs: 3 * 60 * MINUTE,
  });
  const connects: number[] = [];
  for (const untilMs of [MINUTE, 4 * 60 * MINUTE]) {
    const s: Stage = await stage(t, {
      stateDir,
      connect: () => {
        connects.push(s.clock.now().getTime() - START.getTime());
        return Promise.reject(busy);
      },
    });
    s.start();
    await pass(s.clock, untilMs);
    await s.stop();
  }
  assert.deepEqual(connects, [0, 3 * 60 * MINUTE]);
});

test('renewal information is asked for again when the CA says, also after a refusal', async (t) => {
  const asked: number[] = [];
  const s: Stage = await stage(t, {
    renewalInfo: () => {
      asked.push(s.clock.now().getTime() - START.getTime());
      const fields = { type: 'rateLimited', status: 429, detail: 'no', subproblems: [] };
      return Promise.reject(new AcmeProblem('GET', { ...fields, retryAfterMs: 10 * 60 * MINUTE }));
    },
  });
  await s.store.keepCertificate(await newCertificate([a], START));
  await s.manager.load();
  s.start();
  await pass(s.clock, 11 * 60 * MINUTE);
  assert.deepEqual(asked, [0, 10 * 60 * MINUTE]);
});

test('a certificate that was damaged just after it was obtained is ordered at once', async (t) => {
  const stateDir = await freshFolder(t);
  const first = await stage(t, { stateDir });
  first.start();
  await first.clock.idle();
  await first.stop();
  const path = join(first.store.folder, 'certificates', `${a}.json`);
  await writeFile(path, (await readFile(path, 'utf8')).replaceAll('\\n', ''));
  const s = await stage(t, { stateDir });
  assert.deepEqual(await s.manager.load(), []);
  s.start();
  await s.clock.idle();
  assert.deepEqual(minutesOf(s.orders), [0]);
});

test('a certificate that is damaged on disk while it serves is stored anew, not ordered anew', async (t) => {
  const s = await stage(t);
  const served = await newCertificate([a], START);
  await s.store.keepCertificate(served);
  await s.manager.load();
  await writeFile(join(s.store.folder, 'certificates', `${a}.json`), 'x');
  s.start();
  await s.clock.idle();
  assert.equal(s.orders.length, 0);
  assert.deepEqual(
    (await s.store.readCertificates()).map(({ sha256 }) => sha256),
    [served.sha256],
  );
});
