// The supervisor counts for all workers what the limits of rules are held against; of whom it counts it knows digests alone.

import { isDeepStrictEqual } from 'node:util';
import { type Buckets, createBuckets, createSeats } from '../../proxy/rules/limits.ts';
import type { RuleSet } from '../../proxy/rules/model.ts';
import type { LimitAnswer, LimitQuestions } from './messages.ts';

/** Of one worker at a time: more than its connections could have open. */
const MOST_SEATS = 1_000_000;
/** As compile() has it for a zone that does not say. */
const USUAL_MOST_KEYS = 65_536;

/** With their names: zones that have changed places are other zones. */
export function zonesOf(rules: RuleSet | undefined) {
  return (rules?.requestZones ?? []).map(({ name, perThousandSeconds, maxKeys = USUAL_MOST_KEYS }) => ({
    name,
    perThousandSeconds,
    maxKeys,
  }));
}

export interface LimitCounts {
  setRules(rules: RuleSet | undefined): void;
  /** Undefined: no honest worker asks that. */
  answer(worker: number, questions: LimitQuestions): LimitAnswer[] | undefined;
  /** A worker is gone, with all that it held. */
  forget(worker: number): void;
}

export function createLimitCounts(now: () => number = () => performance.now()): LimitCounts {
  const seats = createSeats();
  const held = new Map<number, number>();
  let zones = zonesOf(undefined);
  let buckets: Buckets = createBuckets(zones);

  const answerOne = (worker: number, [id, asked, wanted]: LimitQuestions['asks'][number]): LimitAnswer => {
    // A worker may be one change of the rules behind: what is not limited any more passes.
    const charges = asked
      .filter(([zone]) => zone < zones.length)
      .map(([zone, key, burst, delay]) => ({ zone, key, burst, delay }));
    const verdict = buckets.charge(charges, now());
    if (!verdict.passes) return { id, sameForMs: verdict.sameForMs, which: verdict.which };
    const places = wanted.map(([key, max]) => ({ zone: '', key, max }));
    if (!seats.take(places, worker)) return { id, full: true };
    held.set(worker, (held.get(worker) ?? 0) + places.length);
    return { id, waitMs: verdict.waitMs };
  };

  return {
    setRules(rules) {
      const next = zonesOf(rules);
      // What has been counted goes on counting, unless it is counted otherwise now.
      if (isDeepStrictEqual(next, zones)) return;
      zones = next;
      buckets = createBuckets(zones);
    },
    answer(worker, { asks, leaves }) {
      seats.leave(
        leaves.map((key) => ({ zone: '', key })),
        worker,
      );
      held.set(worker, Math.max(0, (held.get(worker) ?? 0) - leaves.length));
      const answers = asks.map((one) => answerOne(worker, one));
      return held.get(worker)! > MOST_SEATS ? undefined : answers;
    },
    forget(worker) {
      seats.forget(worker);
      held.delete(worker);
    },
  };
}
