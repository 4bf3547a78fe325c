// Replicas that share a store: who may write what, who orders, who serves what another has obtained, and what goes on without it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Account, generateKey } from '../../acme/account.ts';
import { createManager, type Manager } from '../../acme/manager.ts';
import { createSealing, sealingKey } from '../../acme/sealing.ts';
import { createFiles } from '../../acme/storage/files.ts';
import { openLocalCopy } from '../../acme/storage/local-copy.ts';
import { createSealed } from '../../acme/storage/sealed.ts';
import { type Engine, type Storage, StorageError } from '../../acme/storage.ts';
import { createStore, NOTHING, type Store } from '../../acme/store.ts';
import type { LedgerEntry, StoredOrder } from '../../acme/stored.ts';
import { type Certificate, readCertificate } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { makeCertificate } from '../support/certificates.ts';
import { startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, recordedLog } from './support.ts';

const directoryUrl = 'https://ca.example/dir';
const a = parseDomain('a.example');
const DAY = 86_400_000;

/** The store that replicas of one test share: files, as an engine that tells of changes and can be away. */
interface Shared {
  readonly folder: string;
  away: boolean;
  readonly watching: Set<() => void>;
  readonly engine: Engine;
  /** What writes to disks of replicas until it has ended. */
  readonly flushes: (() => Promise<void>)[];
}

async function sharedStore(t: TestContext): Promise<Shared> {
  const flushes: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const flush of flushes) await flush();
  });
  const folder = await freshFolder(t);
  const { alone: _, ...files } = createFiles({ root: join(folder, 'store'), lockPollMs: 20 });
  const watching = new Set<() => void>();
  const away = <T>(call: () => Promise<T>): Promise<T> =>
    self.away ? Promise.reject(new StorageError('unavailable', 'nobody answers')) : call();
  const told = <T>(call: () => Promise<T>): Promise<T> =>
    away(call).finally(() => {
      for (const tell of watching) tell();
    });
  const engine: Engine = {
    ...files,
    read: (...args) => away(() => files.read(...args)),
    list: (...args) => away(() => files.list(...args)),
    create: (...args) => told(() => files.create(...args)),
    replace: (...args) => told(() => files.replace(...args)),
    lease: <T>(...args: Parameters<Storage['lease']>) =>
      away(async () => {
        await files.prepare([args[0].slice(0, args[0].lastIndexOf('/'))]);
        return files.lease(...args) as Promise<T>;
      }),
    watch(_folder, changed) {
      watching.add(changed);
      return () => watching.delete(changed);
    },
    prove: () => away(async () => []),
    close: async () => {},
  };
  const self: Shared = { folder, away: false, watching, engine, flushes };
  return self;
}

const key = sealingKey(randomBytes(32));
async function replica(
  { folder, engine, flushes }: Shared,
  name = randomBytes(4).toString('hex'),
  url = directoryUrl,
) {
  const { log, lines } = recordedLog();
  const sealing = createSealing([key], 'app');
  const copy = await openLocalCopy(join(folder, name), sealing, { log });
  const storage = createSealed({ engine, sealing, copy, log });
  flushes.push(() => storage.close());
  const store = await createStore({ stateDir: join(folder, 'none'), directoryUrl: url, log, storage });
  /** Whoever writes ends before what he has written is flushed. */
  const stopFirst = (stop: () => Promise<void>) => void flushes.unshift(stop);
  return { store, log, lines, flush: () => copy.flush(), stopFirst };
}

const intent = (): StoredOrder => ({
  names: [a],
  key: generateKey(),
  account: 'https://ca.example/1',
  createdAt: new Date().toISOString(),
});

test('of two replicas that mean to order one gets through, and one that was overtaken stores nothing', async (t) => {
  const shared = await sharedStore(t);
  const [{ store: one }, { store: two }] = [await replica(shared), await replica(shared)];
  const [first, second] = [intent(), intent()];
  await one.intendOrder(a, first, undefined);
  await assert.rejects(two.intendOrder(a, second, undefined), { code: 'overtaken' });
  await two.intendOrder(a, second, await two.readOrder(a));
  await assert.rejects(one.writeOrder(a, { ...first, url: 'https://ca.example/o/1' }), { code: 'overtaken' });
  await two.writeOrder(a, { ...second, url: 'https://ca.example/o/2' });
  assert.equal((await one.readOrder(a))?.url, 'https://ca.example/o/2');
});

test('of two replicas that make an account at once the second finds that of the first', async (t) => {
  const shared = await sharedStore(t);
  const [{ store: one }, { store: two }] = [await replica(shared), await replica(shared)];
  const account = { key: generateKey() };
  await one.writeAccount(account, NOTHING);
  await assert.rejects(two.writeAccount({ key: generateKey() }, NOTHING), { code: 'overtaken' });
  assert.deepEqual(await two.readAccount(), account);
  await two.writeAccount({ ...account, url: 'https://ca.example/1' }, account);
  await assert.rejects(one.writeAccount({ ...account, url: 'https://ca.example/2' }, account), {
    code: 'overtaken',
  });
});

test('what replicas note at once about several certificates is all kept', async (t) => {
  const shared = await sharedStore(t);
  const stores = [await replica(shared), await replica(shared), await replica(shared)].map(
    ({ store }) => store,
  );
  const entry = (name: string): LedgerEntry => ({
    names: [name],
    failures: 1,
    crashes: 0,
    notBefore: new Date().toISOString(),
    reason: 'x',
  });
  await Promise.all(stores.map((store, i) => store.writeLedger({ [`${i}.example`]: entry(`${i}.example`) })));
  assert.deepEqual(Object.keys(await stores[0]!.readLedger()).sort(), [
    '0.example',
    '1.example',
    '2.example',
  ]);
  await Promise.all(stores.map((store, i) => store.addChallenge({ name: `${i}`, value: 'v' })));
  assert.equal((await stores[0]!.readChallenges()).length, 3);
});

test('a replica that comes late with an older certificate does not put it over the newer one, nor drops another’s order', async (t) => {
  const { store } = await replica(await sharedStore(t));
  const now = await makeCertificate(a);
  await store.keepCertificate(now);
  const order = intent();
  await store.intendOrder(a, order, undefined);
  await store.keepCertificate(await old(200));
  assert.deepEqual(
    (await store.readCertificates()).map(({ sha256 }) => sha256),
    [now.sha256],
  );
  assert.equal((await store.readOrder(a))?.key, order.key);
});

/** Of a year, begun so many days ago. */
async function old(daysAgo: number): Promise<Certificate> {
  const { X509CertificateGenerator, SubjectAlternativeNameExtension } = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const notBefore = new Date(Date.now() - daysAgo * DAY);
  const made = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=old',
    keys,
    signingAlgorithm: algorithm,
    notBefore,
    notAfter: new Date(notBefore.getTime() + 365 * DAY),
    extensions: [new SubjectAlternativeNameExtension([{ type: 'dns', value: a }])],
  });
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  return readCertificate(
    made.toString('pem'),
    `-----BEGIN PRIVATE KEY-----\n${der}\n-----END PRIVATE KEY-----\n`,
  );
}

interface Stage {
  readonly manager: Manager;
  readonly deployed: Certificate[];
  readonly lines: readonly Record<string, unknown>[];
  orders: number;
  readonly accounts: string[];
}

async function manage(
  { store, log, lines, stopFirst }: Awaited<ReturnType<typeof replica>>,
  prepare: (stage: Stage) => Promise<void> = async () => {},
): Promise<Stage> {
  const account = {
    url: 'https://ca.example/1',
    document: { body: {}, uri: 'https://ca.example/1' },
  } as Account;
  const stopping = new AbortController();
  const stage: Stage = { manager: undefined as never, deployed: [], lines, orders: 0, accounts: [] };
  const manager = createManager({
    wanted: [[a]],
    store,
    connect: async () => {
      // As openAccount does: without its account nothing is ordered.
      await store.readAccount();
      return {
        account,
        issuer: {
          async obtain() {
            stage.orders += 1;
            return makeCertificate(a);
          },
        },
      };
    },
    prepare: () => prepare(stage),
    async deploy(_, fresh) {
      stage.deployed.push(fresh);
    },
    onAccount: ({ uri }) => stage.accounts.push(uri),
    intervalMs: 3_600_000,
    log,
  });
  await manager.load();
  const running = manager.run(stopping.signal);
  stopFirst(async () => {
    stopping.abort();
    await running;
  });
  return Object.assign(stage, { manager });
}

async function until(check: () => boolean, what: () => unknown): Promise<void> {
  for (let tries = 0; !check(); tries += 1) {
    assert.ok(tries < 1_500, JSON.stringify(what()));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('a replica serves what another has obtained although a third holds the lease', async (t) => {
  const shared = await sharedStore(t);
  const third = await replica(shared);
  const release = Promise.withResolvers<void>();
  const holding = third.store.hold(AbortSignal.timeout(60_000), () => release.promise);
  const waiting = await manage(await replica(shared));
  const fresh = await makeCertificate(a);
  await (await replica(shared)).store.keepCertificate(fresh);
  await until(
    () => waiting.deployed.length > 0,
    () => waiting.lines,
  );
  assert.equal(waiting.deployed[0]!.sha256, fresh.sha256);
  assert.equal(waiting.orders, 0);
  release.resolve();
  await holding;
});

test('a replica that could not read the account with the certificate reads it later, and says once that it could not', async (t) => {
  const shared = await sharedStore(t);
  const first = await replica(shared);
  await first.store.writeAccount({ key: generateKey(), url: 'https://ca.example/1' }, NOTHING);
  await first.store.keepCertificate(await old(10));
  let silent = true;
  const engine: Engine = {
    ...shared.engine,
    read: (name, options) =>
      silent && name.endsWith('account.json')
        ? Promise.reject(new StorageError('unavailable', 'nobody answers'))
        : shared.engine.read(name, options),
  };
  const late = await manage(await replica({ ...shared, engine }));
  const renewed = await makeCertificate(a);
  await first.store.keepCertificate(renewed);
  await until(
    () => late.deployed.at(-1)?.sha256 === renewed.sha256,
    () => late.lines,
  );
  assert.deepEqual(late.accounts, []);
  silent = false;
  await first.store.addChallenge({ name: 'n', value: 'a change that is told of' });
  await until(
    () => late.accounts.length > 0,
    () => late.lines,
  );
  assert.equal(late.lines.filter(({ msg }) => msg === 'account cannot be read from disk').length, 1);
});

test('what another replica obtains while this one prepares to order is taken over, and not renewed at once', async (t) => {
  const shared = await sharedStore(t);
  const other = await replica(shared);
  await other.store.keepCertificate(await old(363));
  const fresh = await makeCertificate(a);
  const prepared = Promise.withResolvers<void>();
  const waiting = await manage(await replica(shared), async (stage) => {
    await other.store.keepCertificate(fresh);
    await until(
      () => stage.deployed.at(-1)?.sha256 === fresh.sha256,
      () => stage.lines,
    );
    prepared.resolve();
  });
  await prepared.promise;
  // It has given the lease back.
  await other.store.hold(AbortSignal.timeout(60_000), async () => {});
  assert.equal(waiting.orders, 0);
  assert.equal(waiting.deployed.at(-1)!.sha256, fresh.sha256);
});

test('without the store a certificate that is about to end is renewed all the same, and stored once the store is back', async (t) => {
  const shared = await sharedStore(t);
  const before = await replica(shared, 'disk');
  await before.store.writeAccount({ key: generateKey(), url: 'https://ca.example/1' }, NOTHING);
  await before.store.keepCertificate(await old(363));
  await before.store.readAccount();
  await before.flush();
  shared.away = true;
  const started = await manage(await replica(shared, 'disk'));
  await until(
    () => started.orders === 1,
    () => started.lines,
  );
  await until(
    () => started.deployed.length === 2,
    () => started.lines,
  );
  assert.ok(
    started.lines.some(({ msg }) => msg === 'certificates are about to end, renewing them without the store'),
  );
  shared.away = false;
  started.manager.renewNow([]);
  const newcomer = (await replica(shared)).store;
  const stored = async () => (await newcomer.readCertificates())[0]?.sha256;
  for (let tries = 0; (await stored()) !== started.deployed[1]!.sha256; tries += 1) {
    assert.ok(tries < 500, JSON.stringify(started.lines.slice(-5)));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(started.orders, 1);
});

test('without the store a certificate that has time is not renewed, and neither is one without its account', async (t) => {
  const shared = await sharedStore(t);
  const before = await replica(shared, 'disk');
  await before.store.keepCertificate(await old(300));
  await before.flush();
  const ending = await sharedStore(t);
  const poor = await replica(ending, 'disk');
  await poor.store.keepCertificate(await old(364));
  await poor.flush();
  for (const one of [shared, ending]) {
    one.away = true;
    const started = await manage(await replica(one, 'disk'));
    await until(
      () => started.lines.some(({ msg }) => msg === 'certificates cannot be renewed'),
      () => started.lines,
    );
    assert.equal(started.orders, 0);
    assert.equal(started.manager.status()[0]!.certificate?.names[0], a);
  }
});

test('the intent of a replica that was killed before it ordered is taken over: one order, one certificate', async (t) => {
  const pebble = await startPebble();
  t.after(() => pebble.stop());
  const shared = await sharedStore(t);
  const { store, log } = await replica(shared, 'disk', pebble.directoryUrl);
  await store.intendOrder(a, { ...intent(), account: 'https://elsewhere.example/1' }, undefined);
  const acme = connectionTo(pebble, store as Store, { log });
  t.after(() => acme.close());
  const { issuer } = await acme.connect(AbortSignal.timeout(60_000));
  const certificate = await issuer.obtain([a], AbortSignal.timeout(60_000));
  await store.keepCertificate(certificate);
  assert.equal(pebble.made('order'), 1);
  assert.equal(await store.readOrder(a), undefined);
  const giveUp = new AbortController();
  giveUp.abort(new Error('the lease was lost'));
  await assert.rejects(issuer.obtain([a], giveUp.signal));
  assert.equal(pebble.made('order'), 1, 'who has lost the lease orders nothing');
});
