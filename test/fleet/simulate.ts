// Many replicas in one process, over a real server: what a fleet asks of its store. By hand: node test/fleet/simulate.ts --engine redis --replicas 100

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Account } from '../../acme/account.ts';
import { createManager, type Manager } from '../../acme/manager.ts';
import { createSealing, sealingKey } from '../../acme/sealing.ts';
import { openLocalCopy } from '../../acme/storage/local-copy.ts';
import { createSealed } from '../../acme/storage/sealed.ts';
import type { Engine } from '../../acme/storage.ts';
import { createStore } from '../../acme/store.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeCertificate } from '../support/certificates.ts';
import { fleetEngines } from '../support/fleet-engines.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'redis' },
    replicas: { type: 'string', default: '100' },
    certificates: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '40' },
  },
});
const [count, certificates] = [Number(values.replicas), Number(values.certificates)];
const folder = await mkdtemp(join(tmpdir(), 'simulate-'));
const server = await fleetEngines[values.engine]!(join(folder, 'store'));
const asked: Record<string, number> = {};
const names = Array.from({ length: certificates }, (_, i) => parseDomain(`app${i}.example.com`));
let orders = 0;

function counted(engine: Engine): Engine {
  const count =
    <A extends unknown[], T>(what: string, act: (...args: A) => T) =>
    (...args: A): T => {
      asked[what] = (asked[what] ?? 0) + 1;
      return act(...args);
    };
  return {
    ...engine,
    read: count('read', engine.read),
    create: count('create', engine.create),
    replace: count('replace', engine.replace),
    list: count('list', engine.list),
  };
}

interface One {
  readonly manager: Manager;
  readonly serials: Map<string, number>;
}
const secret = sealingKey(randomBytes(32));
const stopping = new AbortController();
const closing: (() => Promise<void>)[] = [];
const began = performance.now();

async function replica(i: number): Promise<One> {
  const engine = counted(server.open(server.port, 'simulated', 60_000));
  const sealing = createSealing([secret], 'simulated');
  const copy = await openLocalCopy(join(folder, `copy-${i}`), sealing, { log: silentLog, readOnly: true });
  const storage = createSealed({ engine, sealing, copy, log: silentLog });
  const store = await createStore({ stateDir: folder, directoryUrl: 'https://ca.example/dir', storage });
  const serials = new Map<string, number>();
  const uri = 'https://ca.example/1';
  const manager = createManager({
    wanted: names.map((name) => [name]),
    store,
    connect: async () => ({
      account: { url: uri, document: { body: {}, uri } } as Account,
      issuer: {
        async obtain([name]) {
          orders += 1;
          await sleep(500);
          return makeCertificate(name!);
        },
      },
    }),
    prepare: async () => {},
    async deploy(all) {
      for (const { serial } of all) if (!serials.has(serial)) serials.set(serial, performance.now());
    },
    intervalMs: 3_600_000,
  });
  await manager.load();
  const running = manager.run(stopping.signal);
  closing.push(async () => {
    await running;
    await storage.close();
  });
  return { manager, serials };
}

const all = await Promise.all(Array.from({ length: count }, (_, i) => replica(i)));
const until = async (check: () => boolean) => {
  while (!check()) await sleep(50);
};
const reported: Record<string, unknown> = { ...values };
await until(() => all.every(({ manager }) => manager.status().every(({ certificate }) => certificate)));
reported['ready after, s'] = Math.round((performance.now() - began) / 100) / 10;
reported['asked until ready'] = { ...asked };
reported['orders until ready'] = orders;
await sleep(15_000);

for (const key of Object.keys(asked)) delete asked[key];
const quiet = performance.now();
await sleep(Number(values.seconds) * 1_000);
const seconds = (performance.now() - quiet) / 1_000;
const perSecond = Object.values(asked).reduce((sum, each) => sum + each, 0) / seconds;
reported['asked while nothing happens, a second'] = Math.round(perSecond * 10) / 10;

for (const key of Object.keys(asked)) delete asked[key];
all[0]!.manager.renewNow([names[0]!]);
const before = new Set(all[0]!.serials.keys());
const fresh = () => [...all[0]!.serials].find(([serial]) => !before.has(serial));
await until(() => fresh() !== undefined);
const [serial, at] = fresh()!;
await until(() => all.every(({ serials }) => serials.has(serial)));
const delays = all.map(({ serials }) => serials.get(serial)! - at).sort((a, b) => a - b);
reported['a renewal is served by half after, s'] = Math.round(delays[Math.floor(count / 2)]! / 100) / 10;
reported['… by all after, s'] = Math.round(delays.at(-1)! / 100) / 10;
reported['asked for a renewal'] = { ...asked };
reported.orders = orders;
console.log(JSON.stringify(reported, null, 1));
stopping.abort();
await Promise.race([Promise.all(closing.map((close) => close())), sleep(5_000)]);
await server.stop();
await rm(folder, { recursive: true, force: true });
process.exit();
