// A worker asks its supervisor, which counts for all workers, whether the limits of rules let a request pass.

import { createHmac } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import {
  type Charge,
  type Charged,
  createLocalLimiter,
  createRefusals,
  type Limiter,
  type Seat,
} from '../../proxy/rules/limits.ts';
import type { LimitAnswer, LimitQuestions } from './messages.ts';

/** Of one message, so that it stays within LONGEST_FROM_WORKER; what does not fit goes with the next one. */
const MOST_OF_A_MESSAGE = 128;
/** Charges and seats of one message, of at most 60 bytes each. */
const MOST_COUNTS_OF_A_MESSAGE = 700;
/** Messages without an answer: more are not sent, so that neither side has to keep them. */
export const MOST_UNANSWERED = 16;
/** Of questions that wait here. A supervisor that does not answer must not fill a worker's memory. */
const MOST_WAITING = 10_000;
/** Answers take a fraction of a millisecond. */
const SILENCE_MS = 1_000;
/** A worker that was stalled itself reads what has arrived meanwhile before it believes in a silence. */
const CERTAINTY_MS = 100;

export interface AskingLimiter extends Limiter {
  /** What keys are hidden by, the same in all workers. */
  setSecret(secret: Uint8Array): void;
  /** Those of the rules that are served. */
  setZones(zones: Zones): void;
  answered(answers: readonly LimitAnswer[]): void;
}

type Zones = readonly {
  readonly name: string;
  readonly perThousandSeconds: number;
  readonly maxKeys: number;
}[];

export interface AskingLimiterOptions {
  readonly send: (questions: LimitQuestions) => void;
  /**
   * The supervisor has not answered for so long that this worker counts by itself: nobody waits for ever, and a limit still
   * holds for what comes to this process. Called once each time, and again when it is over.
   */
  readonly onSilence?: (silent: boolean) => void;
  readonly now?: () => number;
  readonly silenceMs?: number;
}

interface Waiting {
  readonly charges: readonly Charge[];
  readonly seats: readonly Seat[];
  readonly question: LimitQuestions['asks'][number];
  readonly since: number;
  askedAt: number;
  readonly done: (result: Charged) => void;
}

export function createAskingLimiter(options: AskingLimiterOptions): AskingLimiter {
  return new Asking(options);
}

class Asking implements AskingLimiter {
  private readonly options: AskingLimiterOptions;
  private readonly now: () => number;
  private readonly silenceMs: number;
  private readonly asked = new Map<number, Waiting>();
  private readonly queued: Waiting[] = [];
  /** Questions that were decided here: seats that the supervisor grants for them in the end are left again. */
  private readonly late = new Map<number, readonly Seat[]>();
  private readonly seatsHere = new WeakSet<Seat>();
  private leaving: string[] = [];
  private refusals = createRefusals();
  private zones: Zones = [];
  private local: Limiter;
  private secret: Uint8Array = Buffer.alloc(0);
  private lastId = 0;
  private unanswered = 0;
  private scheduled = false;
  private silent = false;
  private watch: NodeJS.Timeout | undefined;

  constructor(options: AskingLimiterOptions) {
    this.options = options;
    this.now = options.now ?? (() => performance.now());
    this.silenceMs = options.silenceMs ?? SILENCE_MS;
    this.local = createLocalLimiter([], this.now);
  }

  setSecret(secret: Uint8Array): void {
    this.secret = secret;
  }

  setZones(zones: Zones): void {
    // What has been counted and refused goes on, unless it is counted otherwise now.
    if (isDeepStrictEqual(zones, this.zones)) return;
    this.zones = zones;
    this.local = createLocalLimiter(zones, this.now);
    this.refusals = createRefusals();
  }

  charge(charges: readonly Charge[], seats: readonly Seat[], done: (result: Charged) => void) {
    if (this.silent) return this.chargeHere(charges, seats, done);
    const { asked, queued } = this;
    const time = this.now();
    if (this.refusals.has(charges, time) || queued.length + asked.size >= MOST_WAITING)
      return done('requests');
    const question: Waiting['question'] = [
      ++this.lastId,
      charges.map(({ zone, key, burst, delay }) => [zone, this.hidden(key), burst, delay]),
      seats.map((seat) => [this.hiddenSeat(seat), seat.max]),
    ];
    queued.push({ charges, seats, question, since: time, askedAt: 0, done });
    this.schedule();
    this.watch ??= this.lookIn(this.silenceMs);
  }

  leave(seats: readonly Seat[]): void {
    const here = seats.filter((seat) => this.seatsHere.has(seat));
    this.local.leave(here);
    const others = seats.filter((seat) => !this.seatsHere.has(seat));
    if (others.length > 0) this.leaveThere(others);
  }

  answered(answers: readonly LimitAnswer[]): void {
    this.unanswered--;
    if (this.silent) {
      this.silent = false;
      this.options.onSilence?.(false);
    }
    for (const answer of answers) this.take(answer);
    if (this.queued.length + this.leaving.length > 0) this.schedule();
  }

  private take({ id, ...answer }: LimitAnswer) {
    const waiting = this.asked.get(id);
    this.asked.delete(id);
    if (waiting === undefined) return this.takeLate(id, 'waitMs' in answer);
    if ('which' in answer) {
      this.refusals.remember(waiting.charges, { passes: false, ...answer }, waiting.askedAt);
      waiting.done('requests');
    } else waiting.done('full' in answer ? 'seats' : answer);
  }

  private takeLate(id: number, granted: boolean): void {
    const seats = this.late.get(id) ?? [];
    this.late.delete(id);
    if (granted && seats.length > 0) this.leaveThere(seats);
  }

  private leaveThere(seats: readonly Seat[]): void {
    for (const seat of seats) this.leaving.push(this.hiddenSeat(seat));
    this.schedule();
  }

  // --- Messages ---

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => this.flush());
  }

  private flush(): void {
    this.scheduled = false;
    while (this.unanswered < MOST_UNANSWERED && this.queued.length + this.leaving.length > 0) {
      const time = this.now();
      const batch = this.queued.splice(0, fitting(this.queued));
      for (const one of batch) {
        one.askedAt = time;
        this.asked.set(one.question[0], one);
      }
      const leaves = this.leaving.splice(0, MOST_OF_A_MESSAGE);
      this.unanswered++;
      this.options.send({ asks: batch.map(({ question }) => question), leaves });
    }
  }

  private hidden(key: string): string {
    return createHmac('sha256', this.secret).update(key, 'latin1').digest('base64url').slice(0, 22);
  }

  /** Zone and key in one: nothing else of a seat has to be known to count it. */
  private hiddenSeat({ zone, key }: Seat): string {
    return this.hidden(`${zone}\0${key}`);
  }

  // --- When no answer comes ---

  private lookIn(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.look(false), ms).unref();
  }

  private look(certain: boolean): void {
    this.watch = undefined;
    const oldest = this.oldest();
    if (oldest === undefined || this.silent) return;
    const left = oldest + this.silenceMs - this.now();
    if (left > 0) this.watch = this.lookIn(left);
    else if (certain) this.fallSilent();
    else this.watch = setTimeout(() => this.look(true), CERTAINTY_MS).unref();
  }

  /** Both are in the order in which they came. */
  private oldest(): number | undefined {
    const [first] = this.asked.values();
    return (first ?? this.queued[0])?.since;
  }

  private fallSilent(): void {
    this.silent = true;
    this.options.onSilence?.(true);
    const waiting = [...this.asked.values(), ...this.queued];
    for (const [id, { seats }] of this.asked) this.late.set(id, seats);
    this.asked.clear();
    this.queued.length = 0;
    for (const { charges, seats, done } of waiting) this.chargeHere(charges, seats, done);
  }

  private chargeHere(
    charges: readonly Charge[],
    seats: readonly Seat[],
    done: (result: Charged) => void,
  ): void {
    // Of rules that are not served any more there may be more zones.
    const known = charges.filter(({ zone }) => zone < this.zones.length);
    this.local.charge(known, seats, (result) => {
      if (typeof result !== 'string') for (const seat of seats) this.seatsHere.add(seat);
      done(result);
    });
  }
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
