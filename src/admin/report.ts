// What the status page and `top` show: figures every second, and what needs disk and DNS now and then, while somebody looks.

import type { Status } from '../commands/status-report.ts';
import type { ShownSetting } from '../config/shown.ts';
import type { StoreState } from '../store-figures.ts';
import { UPSTREAM } from '../workers/counters.ts';
import { createHistory, type HostTraffic, type HourOfHost, percentileOf, SLOT_SECONDS } from './history.ts';
import type { News, NewsItem } from './news.ts';
import { expiryOf, type Readiness, readinessOf } from './readiness.ts';
import type { Sources } from './sources.ts';

export interface UpstreamReport {
  readonly upstream: string;
  readonly healthy: boolean;
  readonly perSecond: number;
  /** Milliseconds until the reply begins, since the start. */
  readonly p50: number | undefined;
  readonly p99: number | undefined;
  readonly retries: number;
}

export interface WorkerReport {
  readonly place: number;
  readonly ready: boolean;
  readonly residentBytes: number;
  readonly lagMs: number;
  /** Of one core. */
  readonly load: number;
}

/** What changes by the second. */
export interface LiveReport {
  readonly at: string;
  readonly version: string;
  readonly upSeconds: number;
  readonly readiness: Readiness;
  readonly hosts: readonly HostTraffic[];
  readonly connections: { readonly open: number; readonly accepted: number; readonly refused: number };
  readonly upstreams: readonly UpstreamReport[];
  readonly workers: readonly WorkerReport[];
  readonly restarts: number;
  /** Undefined: there is no storage that replicas share. */
  readonly store: StoreState | undefined;
  readonly certificates: readonly {
    readonly domain: string;
    readonly notBefore?: string;
    readonly notAfter?: string;
  }[];
  readonly evidenceAt: string | undefined;
  readonly news: readonly NewsItem[];
}

/** And all that can be told. */
export interface WholeReport extends LiveReport {
  readonly slotSeconds: number;
  readonly hour: readonly HourOfHost[];
  /** Undefined: it could not be read. */
  readonly status: Status | undefined;
}

export interface Report {
  /** To be called once a second. */
  look(): void;
  /** With the news behind this number. */
  live(since: number): LiveReport;
  whole(): Promise<WholeReport>;
}

export interface ReportOptions {
  readonly sources: Sources;
  readonly news: News;
  /** Reads the disk and, where it may, asks the DNS. */
  readStatus(): Promise<Status>;
}

/** DNS and disk are asked no more often, however many look. */
const STATUS_EVERY_MS = 60_000;
const NEWS_IN_WHOLE = 500;

export function createReport({ sources, news, readStatus }: ReportOptions): Report {
  const history = createHistory();
  const upstreams = createUpstreamReports();
  const workers = createWorkerReports();
  let status: Promise<Status | undefined> = Promise.resolve(undefined);
  let statusAt = Number.NEGATIVE_INFINITY;

  function statusNow(): Promise<Status | undefined> {
    const now = performance.now();
    if (now - statusAt > STATUS_EVERY_MS) {
      statusAt = now;
      const before = status;
      // What is known is shown until there is something newer.
      const fresh = readStatus().catch(() => before);
      status = Promise.race([fresh, before.then((known) => known ?? fresh)]);
      void fresh.then(() => {
        status = fresh;
      });
    }
    return status;
  }

  function live(since: number): LiveReport {
    const { totals, restarts } = sources.workers.state();
    const { open = 0, accepted = 0, refused = 0 } = totals.connections!;
    return {
      at: new Date().toISOString(),
      version: sources.version,
      upSeconds: Math.round(process.uptime()),
      readiness: readinessOf(sources),
      hosts: history.traffic(),
      connections: { open, accepted, refused },
      upstreams: upstreams.reports(),
      workers: workers.reports(),
      restarts,
      store: sources.store?.state(),
      certificates: sources.domains().map((domain) => lifeOf(sources, domain)),
      evidenceAt: sources.evidenceAt(),
      news: news.since(since),
    };
  }

  return {
    look() {
      history.look(sources.workers.rows('requests'), sources.workers.rows('hosts'));
      upstreams.look(sources);
      workers.look(sources);
    },
    live,
    async whole() {
      return {
        ...live(0),
        news: news.since(0).slice(-NEWS_IN_WHOLE),
        slotSeconds: SLOT_SECONDS,
        hour: history.hour(),
        status: await Promise.race([statusNow(), aMoment()]),
      };
    },
  };
}

/** Disk and DNS may take long. Who looks now gets the rest, and the next one gets all. */
const PATIENCE_MS = 300;

function aMoment(): Promise<undefined> {
  return new Promise((resolve) => void setTimeout(resolve, PATIENCE_MS, undefined).unref());
}

function lifeOf(sources: Sources, domain: ReturnType<Sources['domains']>[number]) {
  const expiry = expiryOf(sources, domain);
  const served = sources.certificates().find(({ notAfter }) => notAfter.getTime() === expiry);
  if (served === undefined) return { domain };
  return { domain, notBefore: served.notBefore.toISOString(), notAfter: served.notAfter.toISOString() };
}

function createUpstreamReports() {
  let reports: UpstreamReport[] = [];
  let before = new Map<string, number>();
  return {
    reports: () => reports,
    look({ workers }: Sources) {
      const counts = new Map<string, number>();
      reports = workers.rows('upstreams').flatMap(({ labels, numbers }) => {
        const upstream = labels[0]!;
        const buckets = numbers.subarray(UPSTREAM.duration + 1);
        const count = buckets.reduce((sum, each) => sum + each, 0);
        counts.set(upstream, count);
        if (upstream === 'other' && count === 0) return [];
        return [
          {
            upstream,
            healthy: numbers[UPSTREAM.fails] === 0,
            perSecond: count - (before.get(upstream) ?? count),
            p50: percentileOf(buckets, 0.5),
            p99: percentileOf(buckets, 0.99),
            retries: numbers[UPSTREAM.retries]!,
          },
        ];
      });
      before = counts;
    },
  };
}

/** The CPU time of workers is told in steps: their load is taken over several seconds. */
const LOAD_OVER_MS = 5_000;

function createWorkerReports() {
  let reports: WorkerReport[] = [];
  let loads = new Map<number | undefined, number>();
  let before = new Map<number | undefined, number>();
  let at = 0;
  return {
    reports: () => reports,
    look({ workers }: Sources) {
      const { living } = workers.state();
      const now = performance.now();
      if (now - at >= LOAD_OVER_MS) {
        const cpu = new Map(living.map(({ pid, counts }) => [pid, counts.process!.cpuMs!]));
        loads = new Map([...cpu].map(([pid, ms]) => [pid, (ms - (before.get(pid) ?? ms)) / (now - at)]));
        before = cpu;
        at = now;
      }
      reports = living.map(({ pid, place, ready, counts }) => ({
        place,
        ready,
        residentBytes: counts.process!.residentBytes!,
        lagMs: counts.process!.lagMs!,
        load: loads.get(pid) ?? 0,
      }));
    },
  };
}

/** What `/config.json` says. */
export interface ConfigReport {
  readonly settings: readonly ShownSetting[];
  readonly routes: Readonly<Record<string, string>>;
}
