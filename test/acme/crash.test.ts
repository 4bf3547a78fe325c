// kill -9 before every step of an issuance, then another start: one certificate, one order, nothing broken, nothing left.

import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DnsRecord } from '../../dns/provider.ts';
import { bundledScript } from '../support/bundled-script.ts';
import { type Pebble, startPebble } from '../support/pebble.ts';
import { issueOnce } from './issuance.ts';
import type { ChildSettings } from './issuance-child.ts';
import { freshFolder, providerOver, recordedLog, storeFor } from './support.ts';

const script = await bundledScript(join(import.meta.dirname, 'issuance-child.ts'));
let pebble: Pebble;
before(async () => {
  pebble = await startPebble();
});
after(() => pebble?.stop());

interface Run {
  readonly steps: string[];
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

async function issue(stateDir: string, names: string[], dieBefore: string): Promise<Run> {
  const settings: ChildSettings = {
    stateDir,
    names,
    dieBefore,
    directoryUrl: pebble.directoryUrl,
    caPem: pebble.caPem,
  };
  const child = fork(script, [JSON.stringify(settings)], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const steps: string[] = [];
  let output = '';
  child.stderr!.on('data', (chunk) => {
    output += chunk;
  });
  child.on('message', (message) => void onMessage(child, steps, message as Message));
  const deadline = setTimeout(() => child.kill('SIGKILL'), 60_000);
  const [code, signal] = await once(child, 'close');
  clearTimeout(deadline);
  return { steps, code, signal, output };
}

/** Another start, in this process: to the state folder it is one like any other. */
async function start(stateDir: string, names: string[]): Promise<void> {
  const { directoryUrl, caPem, dns } = pebble;
  const { lines, stream } = recordedLog();
  const late = new AbortController();
  const deadline = sleep(60_000, undefined, { signal: late.signal }).then(() => {
    throw new Error(`no certificate within a minute: ${JSON.stringify(lines)}`);
  });
  deadline.catch(() => {});
  const settings = { stateDir, names, directoryUrl, caPem };
  const issued = issueOnce(settings, { provider: providerOver(dns), step: async () => {}, stream });
  await Promise.race([issued, deadline]).finally(() => late.abort());
}

type Message = { step: string } | { id: number; change: 'add' | 'remove'; record: DnsRecord };

async function onMessage(child: ChildProcess, steps: string[], message: Message): Promise<void> {
  if ('step' in message) {
    steps.push(message.step);
    return;
  }
  const { id, change, record } = message;
  await (change === 'add' ? pebble.dns.addTxt : pebble.dns.removeTxt)(record.name, record.value);
  if (child.connected) child.send({ done: id }, () => {});
}

async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

test('killed before any of its steps, an issuance ends in one certificate and no more orders than needed', async (t) => {
  const whole = await issue(await freshFolder(t), ['whole.example', '*.whole.example'], '');
  assert.equal(whole.code, 0, whole.output);
  assert.ok(whole.steps.length >= 25, `the issuance has ${whole.steps.length} steps`);
  for (const [index, step] of whole.steps.entries()) {
    await t.test(`killed before ${step}`, async (t) => {
      const stateDir = await freshFolder(t);
      const base = `step-${index}.example`;
      const names = [base, `*.${base}`];
      await pebble.dns.addTxt(`_acme-challenge.${base}`, 'of another');
      const orders = pebble.made('order');
      const accounts = pebble.made('account');
      const first = await issue(stateDir, names, step);
      // How often the CA is asked while it works is its affair: the last of these steps may not come.
      if (!/ get #/.test(step)) assert.equal(first.signal, 'SIGKILL', first.output);
      await start(stateDir, names);
      // Only an order of which we could not yet have written is lost.
      const lost = first.steps.at(-1) === 'store.writeOrder #1' ? 1 : 0;
      assert.equal(pebble.made('order') - orders, 1 + lost);
      assert.equal(pebble.made('account') - accounts, 1);
      assert.deepEqual(pebble.dns.txt(`_acme-challenge.${base}`), ['of another']);
      const store = await storeFor(pebble, stateDir);
      const [certificate, ...more] = await store.readCertificates();
      assert.deepEqual(certificate?.names, names);
      assert.equal(more.length, 0);
      for (const file of await filesUnder(stateDir)) {
        assert.doesNotMatch(file, /\.(tmp|damaged)$/);
        assert.equal((await stat(file)).mode & 0o077, 0, file);
        JSON.parse(await readFile(file, 'utf8'));
      }
      assert.deepEqual(await readdir(join(store.folder, 'orders')), []);
      assert.deepEqual(await store.readChallenges(), []);
    });
  }
});

test('a crash loop places no more orders than the back-off allows', async (t) => {
  const stateDir = await freshFolder(t);
  const names = ['loop.example'];
  const orders = pebble.made('order');
  // Killed each time after the CA made the order and before we could write it down: the worst there is.
  for (let start = 1; start <= 6; start += 1) {
    const run = await killedAtFirst(stateDir, names, 'store.writeOrder #1');
    if (!run) break;
  }
  assert.ok(pebble.made('order') - orders <= 3, `${pebble.made('order') - orders} orders`);
});

test('three replicas that share one state folder make one account, one order and serve one certificate', async (t) => {
  const stateDir = await freshFolder(t);
  const before = [pebble.made('account'), pebble.made('order')] as const;
  const runs = await Promise.all([1, 2, 3].map(() => issue(stateDir, ['replicas.example'], '')));
  // Each ends by itself once it has a certificate to serve.
  for (const run of runs) assert.equal(run.code, 0, run.output);
  assert.deepEqual([pebble.made('account') - before[0], pebble.made('order') - before[1]], [1, 1]);
});

/** Resolves to false when the process, given two seconds, does not come to that step at all. */
async function killedAtFirst(stateDir: string, names: string[], wanted: string): Promise<boolean> {
  const settings: ChildSettings = {
    stateDir,
    names,
    dieBefore: '',
    directoryUrl: pebble.directoryUrl,
    caPem: pebble.caPem,
  };
  const child = fork(script, [JSON.stringify(settings)], {
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  let came = false;
  child.on('message', (message: Message) => {
    if ('step' in message && message.step === wanted) {
      came = true;
      child.kill('SIGKILL');
    } else if ('id' in message) void onMessage(child, [], message);
  });
  const deadline = setTimeout(() => child.kill('SIGKILL'), 3000);
  await once(child, 'close');
  clearTimeout(deadline);
  return came;
}
