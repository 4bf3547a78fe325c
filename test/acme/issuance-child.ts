// A process that obtains one certificate and can be told to die before its n-th step; its parent is its DNS provider.

import { createAcme } from '../../acme/connect.ts';
import { createDns01Solver } from '../../acme/dns01.ts';
import { createManager } from '../../acme/manager.ts';
import { createStore, type Store } from '../../acme/store.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { createLog } from '../../src/lib/log.ts';

export interface ChildSettings {
  stateDir: string;
  directoryUrl: string;
  caPem: string;
  names: string[];
  /** Dies before this step, named as it reports them; empty: lives. */
  dieBefore: string;
}

const settings: ChildSettings = JSON.parse(process.argv[2]!);
const seen = new Map<string, number>();

/** Tells the parent the step's name and waits for nothing but the message's departure, then dies if it is time. */
async function step(name: string): Promise<void> {
  const occurrence = (seen.get(name) ?? 0) + 1;
  seen.set(name, occurrence);
  const label = `${name} #${occurrence}`;
  await new Promise<void>((resolve) => process.send!({ step: label }, () => resolve()));
  if (label === settings.dieBefore) {
    process.kill(process.pid, 'SIGKILL');
    await new Promise(() => {});
  }
}

let asked = 0;
const waiting = new Map<number, () => void>();
process.on('message', ({ done }: { done: number }) => waiting.get(done)?.());
function askParent(change: 'add' | 'remove', record: DnsRecord): Promise<void> {
  asked += 1;
  const id = asked;
  process.send!({ id, change, record });
  return new Promise((resolve) => waiting.set(id, resolve));
}

function stepping<T extends object>(label: string, target: T, methods: readonly (keyof T & string)[]): T {
  const wrapped = { ...target } as Record<string, unknown>;
  for (const method of methods) {
    const original = target[method] as (...args: unknown[]) => Promise<unknown>;
    wrapped[method] = async (...args: unknown[]) => {
      await step(`${label}.${method}`);
      return original(...args);
    };
  }
  return wrapped as T;
}

const log = createLog({ level: 'trace', stream: process.stderr, readable: false });
const plain = await createStore({ stateDir: settings.stateDir, directoryUrl: settings.directoryUrl, log });
const writes = [
  'writeAccount',
  'keepCertificate',
  'writeOrder',
  'dropOrder',
  'writeLedger',
  'addChallenge',
  'dropChallenge',
] as const;
const store: Store = stepping('store', plain, writes);
const provider = stepping(
  'provider',
  {
    add: (record: DnsRecord) => askParent('add', record),
    remove: (record: DnsRecord) => askParent('remove', record),
  },
  ['add', 'remove'],
);
const solver = createDns01Solver({ provider, wait: async () => {}, store, log });
const { directoryUrl, caPem } = settings;
const acme = createAcme({ directoryUrl, caPem, store, solver, log });
const open = acme.transport.session;
Object.assign(acme.transport, {
  session(key: string) {
    const session = open(key);
    const post: typeof session.post = async (url, payload, options) => {
      await step(
        `post ${new URL(url).pathname.split('/')[1]} ${payload === null ? 'get' : Object.keys(payload)}`,
      );
      return session.post(url, payload, options);
    };
    return { ...session, post };
  },
});
const stop = new AbortController();
const manager = createManager({
  wanted: [settings.names.map(parseDomain)],
  store,
  connect: acme.connect,
  recover: acme.recover,
  prepare: async () => {},
  deploy: async () => step('deploy'),
  intervalMs: 3_600_000,
  log,
});
await manager.load();
const running = manager.run(stop.signal);
while (
  manager.status()[0]!.next === undefined ||
  manager.status()[0]!.next!.at.getTime() < Date.now() + 60_000
) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
stop.abort();
await running;
await acme.close();
process.disconnect!();
