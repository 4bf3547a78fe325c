// A fleet under a schedule of faults that a seed decides, with visitors, and what must be true of it afterwards.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startFaultRelay } from '../support/fault-relay.ts';
import {
  createFleet,
  type Fleet,
  type FleetReplica,
  fillDisk,
  skewedBy,
  startVisits,
  type Visits,
} from '../support/fleet.ts';
import { countOn, firstFlaw, type Operation, recorded } from '../support/history.ts';

export type Fault =
  | 'kill'
  | 'kill, empty disk'
  | 'suspend'
  | 'suspend the supervisor'
  | 'silence'
  | 'no answers'
  | 'no questions'
  | 'closed link'
  | 'slow link'
  | 'store restarts'
  | 'store misbehaves'
  | 'full disk';

export interface Planned {
  readonly atMs: number;
  readonly fault: Fault;
  /** Of the replica, where the fault is of one. */
  readonly on: number;
  readonly forMs: number;
  /** By how much the clock of what is started afterwards is off. */
  readonly skewMs: number;
}

export interface ChaosOptions {
  readonly engine: string;
  readonly seed: number;
  readonly seconds: number;
  readonly replicas: number;
  readonly faults?: readonly Fault[];
  /** Where the logs of all replicas go when all is over. */
  readonly logs?: string | undefined;
  /** Told of each fault as it begins. */
  readonly tell?: (text: string) => void;
}

export interface Outcome {
  readonly faults: Readonly<Record<string, number>>;
  readonly visits: Pick<Visits, 'done' | 'excused' | 'unexcused'>;
  readonly asked: number;
  readonly orders: number;
  readonly accounts: number;
  readonly written: number;
  readonly operations: number;
  /** What must not be; empty if all is well. */
  readonly wrong: readonly string[];
}

/** Mulberry32: the same numbers for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const SECOND = 1_000;
/** How long each lasts, in seconds, from and to; a lease is for 30. */
const SPANS: Readonly<Record<Fault, readonly [number, number]>> = {
  kill: [0.3, 4],
  'kill, empty disk': [0.3, 4],
  suspend: [35, 50],
  'suspend the supervisor': [35, 50],
  silence: [5, 40],
  'no answers': [5, 40],
  'no questions': [5, 40],
  'closed link': [2, 15],
  'slow link': [5, 20],
  'store restarts': [0.5, 6],
  'store misbehaves': [5, 15],
  'full disk': [5, 30],
};
const SKEWS = [0, 0, 600 * SECOND, -600 * SECOND];

/** The schedule, from the seed alone. */
export function plan({ seed, seconds, replicas, engine, faults }: ChaosOptions): Planned[] {
  const random = seeded(seed);
  // Only a double misbehaves when it is told to.
  const all = (Object.keys(SPANS) as Fault[]).filter(
    (each) => engine === 's3' || each !== 'store misbehaves',
  );
  const kinds = faults ?? all;
  const planned: Planned[] = [];
  const spread = seconds >= 60 ? 9 : 3;
  for (let at = 2; at < seconds - 2; at += spread * (0.3 + random())) {
    const fault = kinds[Math.floor(random() * kinds.length)]!;
    const [from, to] = SPANS[fault];
    const longest = seconds >= 60 ? to : Math.min(to, 3);
    planned.push({
      atMs: at * SECOND,
      fault,
      on: Math.floor(random() * replicas),
      forMs: (from + random() * Math.max(longest - from, 0)) * SECOND,
      skewMs: SKEWS[Math.floor(random() * SKEWS.length)]!,
    });
  }
  return planned;
}

export async function chaos(options: ChaosOptions): Promise<Outcome> {
  const { seconds, seed, tell = () => {} } = options;
  const random = seeded(seed + 1);
  await using fleet = await createFleet({ ...options, random, disks: true });
  const counts: Record<string, number> = {};
  const operations: Operation[] = [];
  for (const replica of fleet.replicas) replica.start();
  await Promise.all(fleet.replicas.map(({ process }) => process!.waitFor('ready', undefined, 240_000)));
  tell('all are ready');

  const visits = startVisits(fleet, await fleet.world.roots());
  const stopped = new AbortController();
  const counters = await startCounters(fleet, operations, stopped.signal, random);
  const busy = new Set<FleetReplica>();
  let storeBusy = false;
  const under: Promise<void>[] = [];
  let asked = 0;
  const asking = (async () => {
    const pauseMs = seconds >= 60 ? 15 * SECOND : 4 * SECOND;
    while (!stopped.signal.aborted) {
      await sleep(pauseMs * (0.5 + random()), undefined, { signal: stopped.signal }).catch(() => {});
      const free = fleet.replicas.filter((each) => !busy.has(each));
      const one = free[Math.floor(random() * free.length)];
      if (one === undefined || stopped.signal.aborted) continue;
      one.process!.kill('SIGUSR2');
      asked += 1;
    }
  })();

  const began = performance.now();
  for (const each of plan(options)) {
    await sleep(Math.max(each.atMs - (performance.now() - began), 0));
    const replica = fleet.replicas[each.on]!;
    const ofAll = each.fault.startsWith('store');
    // One replica at least is left alone, and nothing happens to anything twice at once.
    if (ofAll ? storeBusy : busy.has(replica) || busy.size >= fleet.replicas.length - 1) continue;
    counts[each.fault] = (counts[each.fault] ?? 0) + 1;
    tell(
      `${Math.round(each.atMs / SECOND)} s: ${each.fault}${ofAll ? '' : ` at ${replica.host}`}, ${Math.round(each.forMs)} ms`,
    );
    if (ofAll) storeBusy = true;
    else busy.add(replica);
    under.push(
      inflict(fleet, replica, each, { random, tell }).finally(() => {
        if (ofAll) storeBusy = false;
        else busy.delete(replica);
      }),
    );
  }
  await sleep(Math.max(seconds * SECOND - (performance.now() - began), 0));
  await Promise.all(under);
  tell('all is mended');
  stopped.abort();
  await Promise.all([asking, ...counters.running]);
  await counters.close();

  const wrong: string[] = [];
  wrong.push(...(await converge(fleet, tell)));
  asked += 1;
  await visits.stop();
  for (const { process } of fleet.replicas) await process?.stop();
  if (options.logs !== undefined) await keepLogs(fleet, options.logs);
  const history = await fleet.history();
  wrong.push(...flawsIn(history));
  const flaw = firstFlaw(operations);
  if (flaw !== undefined)
    wrong.push(`the history of the counters cannot be explained: ${JSON.stringify(flaw)}`);
  const { pebble } = fleet.world;
  const [orders, accounts] = [pebble.made('order'), pebble.made('account')];
  const explained = Object.values(counts).reduce((sum, count) => sum + count, 0);
  if (orders > 1 + asked + explained) wrong.push(`${orders} orders, ${asked} asked for, ${explained} faults`);
  if (accounts !== 1) wrong.push(`${accounts} accounts`);
  wrong.push(...visits.unexcused.map((each) => `a visitor was failed: ${each}`));
  wrong.push(...fleet.replicas.flatMap(alarms));
  const { done, excused, unexcused } = visits;
  return {
    faults: counts,
    visits: { done, excused, unexcused },
    asked,
    orders,
    accounts,
    written: history.length,
    operations: operations.length,
    wrong,
  };
}

async function keepLogs({ replicas }: Fleet, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const { host, processes } of replicas)
    for (const [i, { log }] of processes.entries()) {
      const lines = log.map((line) => JSON.stringify(line));
      await writeFile(join(folder, `${host}-${i}.log`), `${lines.join('\n')}\n`);
    }
}

interface Inflicting {
  readonly random: () => number;
  readonly tell: (text: string) => void;
}

/** Resolves once the replica is whole again. */
async function inflict(
  fleet: Fleet,
  replica: FleetReplica,
  { fault, forMs, skewMs }: Planned,
  { random, tell }: Inflicting,
): Promise<void> {
  const { link } = replica;
  switch (fault) {
    case 'kill':
    case 'kill, empty disk': {
      excuse(replica, 'was killed', SECOND);
      replica.signal('SIGKILL', true);
      await replica.process!.exited;
      await sleep(forMs);
      if (fault !== 'kill') await emptied(replica.stateDir);
      const fresh = replica.start(skewedBy(skewMs));
      await fresh
        .waitFor('ready', undefined, 120_000)
        .catch((error: Error) => tell(error.message.slice(0, 4000)));
      return;
    }
    case 'suspend':
    case 'suspend the supervisor': {
      const workers = fault === 'suspend';
      if (workers) excuse(replica, 'was suspended', forMs + 3 * SECOND);
      replica.signal('SIGSTOP', workers);
      await sleep(forMs);
      replica.signal('SIGCONT', workers);
      return sleep(2 * SECOND);
    }
    case 'silence':
      link.set('silent');
      break;
    case 'closed link':
      link.set('closed');
      break;
    case 'no answers':
    case 'no questions':
      link.set(fault);
      break;
    case 'slow link':
      link.delay(100 + random() * 1_200);
      break;
    case 'store restarts':
      await fleet.engine.kill();
      await sleep(forMs);
      return fleet.engine.restart();
    case 'store misbehaves':
      fleet.engine.misbehave?.(random);
      await sleep(forMs);
      fleet.engine.misbehave?.(() => 0);
      return;
    case 'full disk': {
      const free = await fillDisk(replica.stateDir);
      await sleep(forMs);
      return free();
    }
  }
  await sleep(forMs);
  link.set('whole');
  link.delay(0);
}

function excuse(replica: FleetReplica, why: string, forMs: number): void {
  const from = performance.now();
  replica.excuses.push({ why, from, to: from + forMs });
}

async function emptied(folder: string): Promise<void> {
  const { readdir, rm } = await import('node:fs/promises');
  for (const entry of await readdir(folder)) await rm(`${folder}/${entry}`, { recursive: true, force: true });
}

/** Clients of the same server that note all that they do, each by way of a link that fails as those of the replicas do. */
async function startCounters(
  fleet: Fleet,
  operations: Operation[],
  signal: AbortSignal,
  random: () => number,
) {
  const links = await Promise.all([1, 2, 3].map(() => startFaultRelay(fleet.engine.port)));
  const engines = links.map(({ port }) => fleet.engine.open(port, 'counters', 2_000));
  const running = engines.map(async (engine, i) => {
    await engine.prove().catch(() => {});
    const storage = recorded(engine, `client ${i}`, operations);
    // A record for each while, so that its history stays short enough to be looked through.
    while (!signal.aborted) {
      const record = `count/${Math.floor(performance.now() / 5_000)}`;
      const while_ = AbortSignal.any([signal, AbortSignal.timeout(1_000)]);
      const slow = {
        ...storage,
        read: async (...args: Parameters<typeof storage.read>) => {
          await sleep(30 + random() * 60);
          return storage.read(...args);
        },
      };
      await countOn({ name: `client ${i}`, storage: slow }, record, while_, random);
    }
  });
  const cutting = (async () => {
    while (!signal.aborted) {
      await sleep(3 * SECOND * (0.5 + random()), undefined, { signal }).catch(() => {});
      const link = links[Math.floor(random() * links.length)]!;
      link.set((['silent', 'no answers', 'no questions', 'closed'] as const)[Math.floor(random() * 4)]!);
      await sleep(SECOND * (0.2 + 3 * random()), undefined, { signal }).catch(() => {});
      link.set('whole');
    }
  })();
  return {
    running: [...running, cutting],
    async close() {
      await Promise.all(engines.map((engine) => engine.close()));
      await Promise.all(links.map((link) => link.stop()));
    },
  };
}

/** All that runs comes to serve one certificate, and the next one as well. */
async function converge(fleet: Fleet, tell: (text: string) => void): Promise<string[]> {
  const { replicas } = fleet;
  const agree = async (unlike?: string) => {
    const serials = await Promise.all(replicas.map((each) => each.serial()));
    const [first] = serials;
    return first !== undefined && first !== unlike && serials.every((each) => each === first)
      ? first
      : undefined;
  };
  const until = async (unlike?: string) => {
    for (let tries = 0; tries < 300; tries += 1) {
      const serial = await agree(unlike);
      if (serial !== undefined) return serial;
      await sleep(SECOND);
    }
    return undefined;
  };
  const now = await until();
  if (now === undefined) return ['the replicas do not come to serve one certificate'];
  tell('all serve one certificate');
  replicas[0]!.process!.kill('SIGUSR2');
  const next = await until(now);
  if (next === undefined) return ['the replicas do not come to serve the next certificate'];
  tell('all serve the next one');
  return [];
}

/** From the server's own order of all that was written. */
export function flawsIn(
  history: readonly { name: string; counter: number; text: string | undefined }[],
): string[] {
  const flaws: string[] = [];
  const counters = new Map<string, number>();
  const keyOfOrder = new Map<string, string>();
  let account: { key?: string; url?: string } = {};
  let newest = 0;
  for (const { name, counter, text } of history) {
    const before = counters.get(name) ?? 0;
    if (counter !== before + 1) flaws.push(`lost update: ${name} goes from change ${before} to ${counter}`);
    counters.set(name, counter);
    if (text === undefined) continue;
    if (name.endsWith('/account.json')) {
      const next = JSON.parse(text) as typeof account;
      if (account.key !== undefined && next.key !== account.key)
        flaws.push('the key of the account has changed');
      if (account.url !== undefined && next.url !== account.url) flaws.push('the account has changed');
      account = next;
    }
    if (name.includes('/orders/')) {
      const { url, key } = JSON.parse(text) as { url?: string; key: string };
      if (url !== undefined && (keyOfOrder.get(url) ?? key) !== key)
        flaws.push(`two keys for the order ${url}`);
      if (url !== undefined) keyOfOrder.set(url, key);
    }
    if (name.includes('/certificates/')) {
      const { chain, key } = JSON.parse(text) as { chain: string; key: string };
      const leaf = new X509Certificate(chain);
      if (!leaf.checkPrivateKey(createPrivateKey(key)))
        flaws.push('a certificate is stored with the key of another');
      if (leaf.validFromDate.getTime() < newest)
        flaws.push('an older certificate is stored over a newer one');
      newest = leaf.validFromDate.getTime();
      if (![...keyOfOrder.values()].includes(key))
        flaws.push('a certificate is stored of which there was no order');
    }
  }
  return flaws;
}

function alarms({ host, process }: FleetReplica): string[] {
  const alarmed = process?.log.filter(
    ({ msg }) => msg === 'store holds what cannot be trusted, nothing is written',
  );
  return (alarmed ?? []).map((line) => `${host} takes the store for hostile: ${JSON.stringify(line)}`);
}
