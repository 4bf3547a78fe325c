// The worker processes as the rest of the program has them: what they are to serve, how they stand, and their end.

import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import type { Bundle } from '../../evidence/bundle.ts';
import type { ServedCertificate } from '../../proxy/listener/listener.ts';
import type { RuleSet } from '../../proxy/rules/model.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import { type ChallengeCertificate, loadFault } from '../lib/certificate.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { FoundChallenge, WorkerSettings } from './messages.ts';
import { createSnapshots, type Generations, type Kind, type Serving } from './serving.ts';
import { Supervisor, type SupervisorOptions } from './supervisor.ts';
import type { Counts, TotalRow } from './totals.ts';
import { WorkersError } from './workers-error.ts';

export { WorkersError, type WorkersErrorCode } from './workers-error.ts';

export interface WorkersOptions {
  readonly count: number;
  readonly settings: WorkerSettings;
  readonly log: Log;
  readonly clock?: Clock;
  /** A worker process that was forked ahead, so that it loads while the configuration is read. */
  readonly forkedAhead?: ChildProcess;
  /** What another instance wants a validation of this domain to be shown; asked where settings.sharedChallenges. */
  findChallenge?(domain: string): Promise<FoundChallenge | undefined>;
  /** A fresh quote over a hash; undefined: there is none for now. */
  attest?(hash: Uint8Array): Promise<RoundAnswer | undefined>;
  /** See SupervisorOptions. */
  readonly takeRecorded?: SupervisorOptions['takeRecorded'];
  readonly lines?: SupervisorOptions['lines'];
  /** How often session ticket keys change by themselves; a renewal changes them as well. */
  readonly ticketKeyLifeMs?: number;
}

/** Each `set` resolves once every living worker serves by it; a worker born later starts with the newest of all. */
export interface Workers {
  /** Rejects with WorkersError if the ports cannot be had; start() does that too. */
  claim(): Promise<void>;
  start(): Promise<{ address: string; port: number }>;
  /** Rejects with WorkersError certificate-refused, and all workers go on with the old ones, if one does not load. */
  setCertificates(certificates: readonly ServedCertificate[]): Promise<void>;
  setRoutes(routes: readonly Route[], rules?: RuleSet): Promise<void>;
  setChallenge(domain: string, certificate: ChallengeCertificate | undefined): Promise<void>;
  setHttpChallenge(token: string, keyAuthorization: string | undefined): Promise<void>;
  setEvidence(current: Bundle | undefined, next?: Bundle): Promise<void>;
  /** Process ids of the living. */
  pids(): number[];
  state(): WorkersState;
  /** Of a block with labels, added up over all workers that there are and were. */
  rows(block: string): readonly TotalRow[];
  /** Lets open requests finish for so long, then ends the processes. */
  drain(timeoutMs: number): Promise<void>;
}

export interface WorkersState {
  /** Of the newest snapshot of each kind. */
  readonly generations: Generations;
  readonly living: readonly WorkerState[];
  /** What all workers have counted, including those that have ended. */
  readonly totals: Counts;
  /** How many there are when all is well. */
  readonly count: number;
  /** How many took the place of one that died. */
  readonly restarts: number;
}

export interface WorkerState {
  readonly pid: number | undefined;
  /** From 1 on; its successor has the same. */
  readonly place: number;
  /** Whether it has started. */
  readonly ready: boolean;
  /** What it serves, as it has acknowledged. */
  readonly serves: Generations;
  readonly counts: Counts;
}

const TICKET_KEY_BYTES = 48;
const LIMIT_SECRET_BYTES = 32;
const TICKET_KEY_LIFE_MS = 12 * 3_600_000;

export function createWorkers(options: WorkersOptions): Workers {
  const { log, clock = systemClock } = options;
  const snapshots = createSnapshots({
    certificates: [],
    routes: { list: [] },
    challenges: new Map(),
    httpChallenges: new Map(),
    evidence: { current: undefined },
    ticketKeys: randomBytes(TICKET_KEY_BYTES),
  });
  const limitSecret = randomBytes(LIMIT_SECRET_BYTES);
  const supervisor = new Supervisor({ ...options, snapshots });

  /** Resolves once every worker serves it. */
  function serve<K extends Kind>(kind: K, value: Serving[K]): Promise<void> {
    snapshots.put(kind, value);
    return supervisor.serveNewest(kind);
  }

  async function setCertificates(certificates: readonly ServedCertificate[]): Promise<void> {
    for (const certificate of certificates) proveLoads(certificate);
    const before = snapshots.serving.certificates;
    try {
      await serve('certificates', certificates);
    } catch (error) {
      await serve('certificates', before);
      throw error;
    }
    // A resumed session shows no certificate: without new keys the old certificate would live on in tickets.
    if (before.length > 0) await rotateTicketKeys();
  }

  /** A worker that starts later must not meet rules which the others have refused. */
  async function setRoutes(list: readonly Route[], rules?: RuleSet): Promise<void> {
    const before = snapshots.serving.routes;
    try {
      await serve('routes', { list, rules, limitSecret });
    } catch (error) {
      if (rules !== undefined) await serve('routes', before);
      throw error;
    }
  }

  function rotateTicketKeys(): Promise<void> {
    return serve('ticketKeys', randomBytes(TICKET_KEY_BYTES));
  }

  return {
    claim: () => supervisor.claim(),
    async start() {
      const address = await supervisor.start();
      const { ticketKeyLifeMs: everyMs = TICKET_KEY_LIFE_MS } = options;
      repeat(rotateTicketKeys, everyMs, clock, supervisor.stopped).catch((err: unknown) => {
        if (!supervisor.stopped.aborted) log.error({ err }, 'ticket key rotation failed');
      });
      return address;
    },
    setCertificates,
    setRoutes,
    setChallenge: (domain, certificate) =>
      serve('challenges', withEntry(snapshots.serving.challenges, domain, certificate)),
    setHttpChallenge: (token, keyAuthorization) =>
      serve('httpChallenges', withEntry(snapshots.serving.httpChallenges, token, keyAuthorization)),
    setEvidence: (current, next) => serve('evidence', { current, next }),
    pids: () => [...supervisor.living].flatMap(({ pid }) => (pid === undefined ? [] : [pid])),
    state: () => ({
      generations: snapshots.generations,
      living: [...supervisor.living].map((worker) => ({
        pid: worker.pid,
        place: worker.place,
        ready: worker.ready,
        serves: worker.serves,
        counts: supervisor.totals.of(worker),
      })),
      totals: supervisor.totals.all(),
      count: options.count,
      restarts: supervisor.restarts,
    }),
    rows: (block) => supervisor.totals.rows(block),
    drain: (timeoutMs) => supervisor.drain(timeoutMs),
  };
}

async function repeat(work: () => Promise<void>, everyMs: number, clock: Clock, stopped: AbortSignal) {
  while (!stopped.aborted) {
    await clock.sleep(everyMs, stopped);
    await work();
  }
}

/** Undefined takes the entry away. */
function withEntry<T>(
  map: ReadonlyMap<string, T>,
  key: string,
  value: T | undefined,
): ReadonlyMap<string, T> {
  const others = [...map].filter(([other]) => other !== key);
  return new Map(value === undefined ? others : [...others, [key, value]]);
}

function proveLoads(certificate: ServedCertificate): void {
  const why = loadFault(certificate);
  if (why === undefined) return;
  const subject = `the certificate for ${certificate.names.join(', ')}`;
  throw new WorkersError('certificate-refused', `${subject} does not load`, { cause: new Error(why) });
}
