// A simulated year of short-lived certificates, with faults of the CA, the DNS, the disk and ourselves.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createAcme } from '../../acme/connect.ts';
import { createDns01Solver } from '../../acme/dns01.ts';
import { createManager } from '../../acme/manager.ts';
import { createStore, type Store } from '../../acme/store.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';
import { type Fault, startYearCa, type YearCa } from '../support/year-ca.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.parse('2026-01-01T00:00:00Z');
/** Of Let's Encrypt's shortlived profile. */
const LIFE = 160 * HOUR;

/** For a longer look: more certificates, another course of events. */
const certificates = Number(process.env.YEAR_CERTIFICATES ?? 2);
const days = Number(process.env.YEAR_DAYS ?? 365);
const seed = Number(process.env.YEAR_SEED ?? 20260101);

/** In [0, 1), the same sequence for the same seed (mulberry32). */
function randomFrom(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Incident {
  readonly kind: 'ca down' | 'ca busy' | 'orders refused' | 'dns down' | 'disk full' | 'mass revocation';
  readonly start: number;
  readonly end: number;
}

/** One every ten days, so that each is over before the next; twice the CA is gone for longer than a certificate lives. */
function planIncidents(random: () => number): Incident[] {
  const kinds = ['ca down', 'ca busy', 'orders refused', 'dns down', 'disk full', 'mass revocation'] as const;
  const incidents: Incident[] = [];
  for (let day = 10; day < days - 10; day += 10) {
    const start = START + (day + random()) * DAY;
    const long = day % 150 === 100;
    const kind = long ? 'ca down' : kinds[Math.floor(random() * kinds.length)]!;
    const hours = long ? 120 + random() * 24 : 1 + random() * 35;
    incidents.push({ kind, start, end: start + hours * HOUR });
  }
  return incidents;
}

interface Gap {
  readonly name: string;
  readonly from: number;
  to: number;
}

test(`a year of ${certificates} short-lived certificates: never one missing while the CA was to be had, never more orders than allowed`, async (t) => {
  const random = randomFrom(seed);
  const incidents = planIncidents(random);
  const during = (kind: Incident['kind'], now: number) =>
    incidents.some((each) => each.kind === kind && each.start <= now && now < each.end);
  const wanted = Array.from({ length: certificates }, (_, i) => {
    const base = parseDomain(`app${i}.example${i % 5}.com`);
    return i % 4 === 0 ? [base, parseDomain(`*.${base}`)] : [base];
  });

  // Time: whoever sleeps has slept; what is served is looked at whenever it passes.
  let nowMs = START;
  const served = new Map<string, Certificate>();
  const gaps: Gap[] = [];
  const open = new Map<string, Gap>();
  let shortest = LIFE;
  function pass(to: number): void {
    if (to <= nowMs) return;
    for (const [name] of wanted) {
      const end = served.get(name!)?.notAfter.getTime() ?? START;
      if (served.has(name!)) shortest = Math.min(shortest, inLongOutage(to) ? LIFE : end - to);
      if (end > to || (!served.has(name!) && gaps.length === 0 && to < START + DAY)) continue;
      const gap = open.get(name!) ?? { name: name!, from: end, to };
      if (!open.has(name!)) gaps.push(gap);
      gap.to = to;
      open.set(name!, gap);
    }
    nowMs = to;
  }
  const longOutages = () => incidents.filter((each) => each.end - each.start > LIFE / 2);
  /** And shortly after it, until all is made good. */
  const inLongOutage = (at: number) =>
    longOutages().some((each) => each.start <= at && at < each.end + 6 * HOUR);
  const clock: Clock = {
    now: () => new Date(nowMs),
    async sleep(ms, signal) {
      const until = nowMs + ms;
      await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      pass(until);
    },
  };

  // The world, each part with its moods.
  const texts = new Map<string, Set<string>>();
  let restart = () => {};
  const faultOf = (path: string): Fault => {
    if (random() < 1 / 200) restart();
    if (during('ca down', nowMs)) return random() < 0.1 ? 'reset' : 'unavailable';
    if (during('ca busy', nowMs) && random() < 0.3) return 'limited';
    if (during('orders refused', nowMs) && path === '/new-order') return 'broken';
    const chance = random();
    if (chance < 0.005) return 'reset';
    if (chance < 0.01) return 'broken';
    if (chance < 0.014) return 'nonsense';
    return chance < 0.018 ? 'limited' : undefined;
  };
  const ca = await startYearCa({
    now: () => nowMs,
    lifeMs: LIFE,
    fault: faultOf,
    spoil: () => random() < 0.005,
    lookUpTxt: (name) => (random() < 0.01 ? [] : [...(texts.get(name) ?? [])]),
    window: (notBefore, notAfter) => {
      if (during('mass revocation', nowMs)) return [nowMs - 2 * HOUR, nowMs - HOUR];
      const middle = (notBefore + notAfter) / 2;
      return [middle - 2 * HOUR, middle + 2 * HOUR];
    },
  });
  const failing = (what: string, chance: number): void => {
    if (random() < chance) throw Object.assign(new Error(what), { code: 'ENOSPC' });
  };
  const dns = {
    async add({ name, value }: DnsRecord) {
      failing('the DNS API is down', during('dns down', nowMs) ? 0.9 : 0.01);
      texts.set(name, (texts.get(name) ?? new Set()).add(value));
    },
    async remove({ name, value }: DnsRecord) {
      failing('the DNS API is down', during('dns down', nowMs) ? 0.9 : 0.01);
      texts.get(name)?.delete(value);
    },
  };
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'year-'));
  t.after(async () => {
    await ca.stop();
    await rm(folder, { recursive: true, force: true });
  });

  let runs = 0;
  async function run(): Promise<void> {
    const store = unreliable(
      await createStore({ stateDir: folder, directoryUrl: ca.directoryUrl, clock }),
      () => failing('no space left on device', during('disk full', nowMs) ? 0.9 : 0.003),
    );
    const solver = createDns01Solver({
      provider: dns,
      store,
      async wait() {
        failing('the record does not show', during('dns down', nowMs) ? 0.5 : 0.01);
      },
    });
    const acme = createAcme({ directoryUrl: ca.directoryUrl, caPem: ca.caPem, store, solver, clock });
    const stopping = new AbortController();
    restart = () => stopping.abort();
    const serve = (fresh: readonly Certificate[]) => {
      for (const certificate of fresh) {
        served.set(certificate.names[0]!, certificate);
        if (certificate.notAfter.getTime() > nowMs) open.delete(certificate.names[0]!);
      }
    };
    const deploy = async (fresh: readonly Certificate[]) => {
      failing('the certificate does not load', 0.01);
      serve(fresh);
    };
    const manager = createManager({
      wanted,
      store,
      connect: acme.connect,
      renewalInfo: acme.renewalInfo,
      recover: acme.recover,
      prepare: async () => failing('the records are not in place', during('dns down', nowMs) ? 0.5 : 0.01),
      deploy,
      intervalMs: 12 * HOUR,
      clock: {
        ...clock,
        async sleep(ms, signal) {
          if (nowMs + ms >= START + days * DAY) stopping.abort();
          return clock.sleep(ms, signal);
        },
      },
      log: silentLog,
      random,
    });
    // A start serves what is on disk, and nothing else.
    served.clear();
    serve(await manager.load());
    runs += 1;
    await manager.run(stopping.signal);
    await acme.close();
  }

  while (nowMs < START + days * DAY - 12 * HOUR) await run();

  t.diagnostic(
    `seed ${seed}: ${ca.issued} certificates, ${runs} starts, ${incidents.length} incidents, peaks ${JSON.stringify(ca.peaks)}, ` +
      `least life left ${Math.round(shortest / HOUR)} h, ${gaps.length} gaps`,
  );
  for (const { name, from, to } of gaps) {
    const hours = Math.round((to - from) / HOUR);
    assert.ok(
      inLongOutage(from),
      `${name} had no certificate from ${new Date(from).toISOString()} for ${hours} h`,
    );
    assert.ok(
      inLongOutage(to),
      `${name} was without a certificate when the CA was back, ${new Date(to).toISOString()}`,
    );
  }
  assertWithinLimits(ca);
  const expected = (certificates * days * DAY) / LIFE;
  assert.ok(ca.issued > expected, `${ca.issued} certificates were made`);
  assert.equal(ca.accounts, 1);
  assert.ok(runs > days / 30, 'it was restarted now and then');
  const store = await createStore({ stateDir: folder, directoryUrl: ca.directoryUrl, clock });
  const noted = new Set((await store.readChallenges()).map(({ value }) => value));
  const forgotten = [...texts.values()].flatMap((values) => [...values].filter((value) => !noted.has(value)));
  // Only a DNS that refuses the removal of what a full disk refused to note can leave one.
  assert.ok(forgotten.length <= 3, `${forgotten.length} challenge records are left for ever`);
});

function assertWithinLimits({ exceeded, peaks }: YearCa): void {
  assert.deepEqual(exceeded, []);
  assert.ok(peaks['certificates of the same names']! > 1, 'the limits were counted');
}

/** A store whose writes may fail. */
function unreliable(store: Store, mayFail: () => void): Store {
  const writes = new Set<string | symbol>([
    ...['writeAccount', 'keepCertificate', 'writeOrder', 'writeLedger', 'writeWindows'],
    ...['addChallenge', 'dropChallenge'],
  ]);
  return new Proxy(store, {
    get(target, name, receiver) {
      const member = Reflect.get(target, name, receiver);
      if (!writes.has(name) || typeof member !== 'function') return member;
      return async (...args: unknown[]) => {
        mayFail();
        return member.apply(target, args);
      };
    },
  });
}
