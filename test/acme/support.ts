// What the tests of acme/ share: a solver over the test DNS server, a store in a fresh folder, a whole connection.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type AcmeOptions, createAcme } from '../../acme/connect.ts';
import { createDns01Solver } from '../../acme/dns01.ts';
import { createStore, type Store } from '../../acme/store.ts';
import type { DnsProvider } from '../../dns/provider.ts';
import { createLog, type Log } from '../../src/lib/log.ts';
import type { Pebble, PebbleDns } from '../support/pebble.ts';

export async function freshFolder(t: Pick<TestContext, 'after'>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'acme-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes to the server that Pebble asks. */
export function providerOver(dns: PebbleDns): Pick<DnsProvider, 'add' | 'remove'> {
  return {
    add: ({ name, value }) => dns.addTxt(name, value),
    remove: ({ name, value }) => dns.removeTxt(name, value),
  };
}

export interface Lines {
  readonly log: Log;
  /** What it writes to. */
  readonly stream: NodeJS.WritableStream;
  /** Each line that was logged, parsed. */
  readonly lines: readonly Record<string, unknown>[];
}

export function recordedLog(): Lines {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string) => lines.push(JSON.parse(line)) > 0;
  const stream = { write } as unknown as NodeJS.WritableStream;
  return { lines, stream, log: createLog({ level: 'trace', stream }) };
}

export async function storeFor(pebble: Pebble, stateDir: string, log?: Log): Promise<Store> {
  return createStore({ stateDir, directoryUrl: pebble.directoryUrl, ...(log === undefined ? {} : { log }) });
}

export function connectionTo(pebble: Pebble, store: Store, settings: Partial<AcmeOptions> = {}) {
  const solver = createDns01Solver({ provider: providerOver(pebble.dns), wait: async () => {}, store });
  return createAcme({ directoryUrl: pebble.directoryUrl, caPem: pebble.caPem, store, solver, ...settings });
}
