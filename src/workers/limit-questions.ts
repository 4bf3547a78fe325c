// A worker asks its supervisor, which counts for all workers, whether the limits of rules let a request pass.

import { createHmac } from 'node:crypto';
import type { Charged, Limiter } from '../../proxy/exchange/rules-in-use.ts';
import { type Charge, createRefusals, type Seat } from '../../proxy/rules/limits.ts';
import type { LimitAnswer, LimitQuestions } from './messages.ts';

/** Of one message, so that it stays within LONGEST_FROM_WORKER; what does not fit goes with the next one. */
const MOST_OF_A_MESSAGE = 128;
/** Charges and seats of one message, of at most 60 bytes each. */
const MOST_COUNTS_OF_A_MESSAGE = 700;
/** Messages without an answer: more are not sent, so that neither side has to keep them. */
export const MOST_UNANSWERED = 16;
/** Of questions that wait here. A supervisor that does not answer must not fill a worker's memory. */
const MOST_WAITING = 10_000;

export interface AskingLimiter extends Limiter {
  /** What keys are hidden by, the same in all workers. */
  setSecret(secret: Uint8Array): void;
  answered(answers: readonly LimitAnswer[]): void;
}

interface Waiting {
  readonly charges: readonly Charge[];
  readonly question: LimitQuestions['asks'][number];
  askedAt: number;
  readonly done: (result: Charged) => void;
}

export function createAskingLimiter(
  send: (questions: LimitQuestions) => void,
  now: () => number = () => performance.now(),
): AskingLimiter {
  const refusals = createRefusals();
  const asked = new Map<number, Waiting>();
  const queued: Waiting[] = [];
  let leaving: LimitQuestions['leaves'][number][] = [];
  let secret: Uint8Array = Buffer.alloc(0);
  let lastId = 0;
  let unanswered = 0;
  let scheduled = false;

  const hidden = (key: string) =>
    createHmac('sha256', secret).update(key, 'latin1').digest('base64url').slice(0, 22);

  const flush = () => {
    scheduled = false;
    while (unanswered < MOST_UNANSWERED && queued.length + leaving.length > 0) {
      const time = now();
      const batch = queued.splice(0, fitting(queued));
      for (const one of batch) {
        one.askedAt = time;
        asked.set(one.question[0], one);
      }
      const leaves = leaving.splice(0, MOST_OF_A_MESSAGE);
      unanswered++;
      send({ asks: batch.map(({ question }) => question), leaves });
    }
  };
  const schedule = () => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(flush);
  };

  return {
    setSecret(next) {
      secret = next;
    },
    charge(charges, seats, done) {
      if (refusals.has(charges, now()) || queued.length + asked.size >= MOST_WAITING) return done('requests');
      const id = ++lastId;
      const question: Waiting['question'] = [
        id,
        charges.map(({ zone, key, burst, delay }) => [zone, hidden(key), burst, delay]),
        seats.map(({ zone, key, max }) => [zone, hidden(key), max]),
      ];
      queued.push({ charges, question, askedAt: 0, done });
      schedule();
    },
    leave(seats: readonly Seat[]) {
      leaving = [...leaving, ...seats.map(({ zone, key }) => [zone, hidden(key)] as [number, string])];
      schedule();
    },
    answered(answers) {
      unanswered--;
      for (const { id, ...answer } of answers) {
        const waiting = asked.get(id);
        asked.delete(id);
        if (waiting === undefined) continue;
        if ('which' in answer) {
          refusals.remember(waiting.charges, { passes: false, ...answer }, waiting.askedAt);
          waiting.done('requests');
        } else waiting.done('full' in answer ? 'seats' : answer);
      }
      if (queued.length + leaving.length > 0) schedule();
    },
  };
}

/** How many of them go into one message; at least one. */
function fitting(queued: readonly Waiting[]): number {
  let counts = 0;
  for (const [index, { question }] of queued.entries()) {
    counts += question[1].length + question[2].length;
    if (index > 0 && (counts > MOST_COUNTS_OF_A_MESSAGE || index === MOST_OF_A_MESSAGE)) return index;
  }
  return queued.length;
}
