// What must go on through CA outages, switches between CAs, and CAs at their most tiresome.

import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { createManager, type Manager } from '../../acme/manager.ts';
import { createStore } from '../../acme/store.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { connectionTo, freshFolder, recordedLog } from './support.ts';

let pebble: Pebble;
let staging: Pebble;
before(async () => {
  // The most tiresome CA: refuses most nonces, pauses before it validates, hands out old authorizations.
  [pebble, staging] = await Promise.all([
    startPebble({ nonceRejectPercent: 90, authzReusePercent: 100, sleep: true }),
    startPebble(),
  ]);
});
after(() => Promise.all([pebble?.stop(), staging?.stop()]));

interface Start {
  readonly loaded: readonly Certificate[];
  readonly manager: Manager;
  readonly deployed: (readonly Certificate[])[];
  readonly lines: readonly Record<string, unknown>[];
  stop(): Promise<void>;
}

async function start(t: TestContext, ca: Pebble, stateDir: string): Promise<Start> {
  const { log, lines } = recordedLog();
  const store = await createStore({ stateDir, directoryUrl: ca.directoryUrl, log });
  const acme = connectionTo(ca, store, { log });
  const stopping = new AbortController();
  const deployed: (readonly Certificate[])[] = [];
  const manager = createManager({
    wanted: [[parseDomain('on.example')]],
    store,
    connect: acme.connect,
    renewalInfo: acme.renewalInfo,
    recover: acme.recover,
    prepare: async () => {},
    async deploy(certificates) {
      deployed.push(certificates);
    },
    intervalMs: 3_600_000,
    log,
  });
  const loaded = await manager.load();
  const running = manager.run(stopping.signal);
  const stop = async () => {
    stopping.abort();
    await running;
    await acme.close();
  };
  t.after(stop);
  return { loaded, manager, deployed, lines, stop };
}

async function until({ lines }: Start, message: string): Promise<void> {
  for (let looks = 0; !lines.some((line) => line.msg === message); looks += 1) {
    assert.ok(looks < 3000, `${message} is not in the log: ${JSON.stringify(lines.slice(-5))}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('staging and production in turn: each keeps its account and its certificate, and neither serves for the other', async (t) => {
  const stateDir = await freshFolder(t);
  for (const ca of [staging, pebble]) {
    const first = await start(t, ca, stateDir);
    assert.deepEqual(first.loaded, []);
    await until(first, 'certificate obtained');
    await first.stop();
  }
  const accounts = [staging.made('account'), pebble.made('account')];
  const issuers = new Set<string>();
  for (const ca of [staging, pebble]) {
    const again = await start(t, ca, stateDir);
    assert.equal(again.loaded.length, 1);
    issuers.add(again.loaded[0]!.issuer);
    await until(again, 'renewal planned');
    await again.stop();
    assert.equal(again.deployed.length, 0);
  }
  assert.equal(issuers.size, 2);
  assert.deepEqual([staging.made('account'), pebble.made('account')], accounts);
});

test('with the CA dead a restart still loads what it had, and says what it cannot do', async (t) => {
  const ca = await startPebble();
  t.after(ca.stop);
  const stateDir = await freshFolder(t);
  const first = await start(t, ca, stateDir);
  await until(first, 'certificate obtained');
  await first.stop();
  await ca.kill();
  const second = await start(t, ca, stateDir);
  assert.deepEqual(second.loaded, first.deployed[0]);
  second.manager.renewNow();
  await until(second, 'certificates cannot be renewed');
  assert.equal(second.manager.status()[0]!.certificate?.serial, first.deployed[0]![0]!.serial);
  assert.equal(second.deployed.length, 0);
});
