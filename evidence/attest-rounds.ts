// Fresh quotes, in rounds: all that ask within a second get one quote together, and the agent is asked no more often.

import { type Clock, monotonicMs, systemClock } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';
import type { QuoteAnswer } from './agent.ts';
import { attestReportData, type PathStep } from './attest-claims.ts';
import { attestTree } from './attest-tree.ts';

/** What somebody gets who asked with a hash. */
export interface RoundAnswer {
  /** From that hash to the root. */
  readonly path: readonly PathStep[];
  /** Lower-case hex. */
  readonly root: string;
  readonly quote: string;
  readonly eventLog: string;
  readonly reportData: string;
  readonly vmConfig?: string | undefined;
}

export interface AttestRounds {
  /** Undefined: the agent did not answer for as long as it is waited for. Never rejects. */
  ask(hash: Uint8Array): Promise<RoundAnswer | undefined>;
}

export interface AttestRoundsOptions {
  quote(reportData: Uint8Array): Promise<QuoteAnswer>;
  readonly log: Log;
  readonly clock?: Clock;
  readonly everyMs?: number;
  /** Who has waited for so long is told that there is none. */
  readonly patienceMs?: number;
}

interface Asking {
  readonly hash: Uint8Array;
  readonly until: number;
  answer(answer: RoundAnswer | undefined): void;
}

const EVERY_MS = 1_000;
/** An agent under load needs up to half a minute for a quote. */
export const ATTEST_PATIENCE_MS = 30_000;

/** How many may ask is for the caller to bound. The next round waits for the one before: a silent agent is asked once. */
export function createAttestRounds(options: AttestRoundsOptions): AttestRounds {
  const { log, clock = systemClock, everyMs = EVERY_MS, patienceMs = ATTEST_PATIENCE_MS } = options;
  let waiting: Asking[] = [];
  let running = false;
  let lastAt = Number.NEGATIVE_INFINITY;
  let failing = false;

  async function run(): Promise<void> {
    running = true;
    while (waiting.length > 0) {
      await clock.sleep(Math.max(0, lastAt + everyMs - monotonicMs(clock)));
      lastAt = monotonicMs(clock);
      const round = waiting;
      waiting = [];
      const unanswered = await serve(round);
      // The agent may be back in a moment.
      const now = monotonicMs(clock);
      waiting = [...unanswered.filter(({ until }) => until > now), ...waiting];
      for (const { until, answer } of unanswered) if (until <= now) answer(undefined);
    }
    running = false;
  }

  /** Returns those for whom there was no quote. */
  async function serve(round: readonly Asking[]): Promise<readonly Asking[]> {
    const { root, paths } = attestTree(round.map(({ hash }) => hash));
    const answer = await options.quote(attestReportData(root)).catch((err: unknown) => {
      if (!failing) log.warn({ err }, 'no fresh quotes for now');
      failing = true;
    });
    if (answer === undefined) return round;
    if (failing) log.info('fresh quotes again');
    failing = false;
    const { quote, event_log: eventLog, report_data: reportData, vm_config: vmConfig } = answer;
    round.forEach((asking, index) => {
      asking.answer({
        path: paths[index]!,
        root: root.toString('hex'),
        quote,
        eventLog,
        reportData,
        vmConfig,
      });
    });
    return [];
  }

  return {
    ask: (hash) =>
      new Promise((answer) => {
        waiting.push({ hash, until: monotonicMs(clock) + patienceMs, answer });
        if (!running) void run();
      }),
  };
}
