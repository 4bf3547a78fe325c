// One issuance from its start to its end, as a start of the program makes it; told of each step before it is taken.

import { createAcme } from '../../acme/connect.ts';
import { createDns01Solver } from '../../acme/dns01.ts';
import { createManager } from '../../acme/manager.ts';
import { createStore, type Store } from '../../acme/store.ts';
import type { DnsProvider } from '../../dns/provider.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { createLog } from '../../src/lib/log.ts';

export interface IssuanceSettings {
  stateDir: string;
  directoryUrl: string;
  caPem: string;
  names: string[];
}

export interface IssuanceSurroundings {
  provider: Pick<DnsProvider, 'add' | 'remove'>;
  step(name: string): Promise<void>;
  /** Of the log. */
  stream: NodeJS.WritableStream;
}

const WRITES = [
  'writeAccount',
  'keepCertificate',
  'writeOrder',
  'dropOrder',
  'writeLedger',
  'addChallenge',
  'dropChallenge',
] as const;

/** Resolves when a certificate serves and everything is closed. */
export async function issueOnce(
  { stateDir, directoryUrl, caPem, names }: IssuanceSettings,
  { step, stream, ...surroundings }: IssuanceSurroundings,
): Promise<void> {
  const log = createLog({ level: 'trace', stream, readable: false });
  const plain = await createStore({ stateDir, directoryUrl, log });
  const store: Store = stepping(step, 'store', plain, WRITES);
  const provider = stepping(step, 'provider', surroundings.provider, ['add', 'remove']);
  const solver = createDns01Solver({ provider, wait: async () => {}, store, log });
  const acme = createAcme({ directoryUrl, caPem, store, solver, log });
  tellPosts(acme.transport, step);
  const stop = new AbortController();
  const manager = createManager({
    wanted: [names.map(parseDomain)],
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
}

type Step = IssuanceSurroundings['step'];

function stepping<T extends object>(
  step: Step,
  label: string,
  target: T,
  methods: readonly (keyof T & string)[],
): T {
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

function tellPosts(transport: ReturnType<typeof createAcme>['transport'], step: Step): void {
  const open = transport.session;
  Object.assign(transport, {
    session(key: string) {
      const session = open(key);
      const post: typeof session.post = async (url, payload, options) => {
        const kind = new URL(url).pathname.split('/')[1];
        await step(`post ${kind} ${payload === null ? 'get' : Object.keys(payload)}`);
        return session.post(url, payload, options);
      };
      return { ...session, post };
    },
  });
}
