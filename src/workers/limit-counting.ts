// Counts for all workers what their limits allow: what each asks is answered from one memory, and what a dead one held is free.

import {
  type Buckets,
  type BucketTable,
  createBuckets,
  createSeats,
  type LimitZones,
  type Seat,
} from '../../proxy/rules/limits.ts';
import type { Counted, LimitQuestion, LimitQuestions } from './messages.ts';

export interface LimitCounting {
  /** Before the workers are told of them. */
  setZones(generation: number, zones: LimitZones): void;
  /** A text says why no honest worker asks that. */
  count(worker: object, asked: LimitQuestions): readonly Counted[] | string;
  /** With all that it held. */
  gone(worker: object): void;
}

/** Workers that have not heard of the newest zones yet ask by older ones. */
const GENERATIONS_KEPT = 64;
/** Beyond what one worker can have under way. */
const MOST_TICKETS = 200_000;

interface Zones {
  readonly requests: readonly { readonly name: string }[];
  readonly buckets: Buckets;
  /** Numbers of the names of connection zones: they stay the same over reloads. */
  readonly seatZones: readonly number[];
}

interface Holder {
  readonly id: number;
  readonly tickets: Map<number, readonly Seat[]>;
}

export function createLimitCounting(now: () => number = () => performance.now()): LimitCounting {
  const generations = new Map<number, Zones>();
  let tables = new Map<string, BucketTable>();
  const seatZones = new Map<string, number>();
  const seats = createSeats();
  const holders = new Map<object, Holder>();
  let lastHolder = 0;
  let lastTicket = 0;

  function holderOf(worker: object): Holder {
    let holder = holders.get(worker);
    if (holder === undefined) {
      holder = { id: ++lastHolder, tickets: new Map() };
      holders.set(worker, holder);
    }
    return holder;
  }

  function answer(holder: Holder, asked: LimitQuestion, zones: Zones): Counted {
    const { question } = asked;
    const charges = asked.charges.map(([zone, key, burst, delay]) => ({ zone, key, burst, delay }));
    const verdict = zones.buckets.charge(charges, now());
    if (!verdict.passes) {
      const { which, sameForMs } = verdict;
      return { question, passes: false, by: 'requests', which, sameForMs };
    }
    const { waitMs } = verdict;
    if (asked.seats.length === 0) return { question, passes: true, waitMs };
    const wanted = asked.seats.map(([zone, key, max]) => ({ zone: zones.seatZones[zone]!, key, max }));
    if (holder.tickets.size >= MOST_TICKETS || !seats.take(wanted, holder.id))
      return { question, passes: false, by: 'seats' };
    const ticket = ++lastTicket;
    holder.tickets.set(ticket, wanted);
    return { question, passes: true, waitMs, ticket };
  }

  function lieOf({ charges, seats: wanted, zones: generation }: LimitQuestion): string | undefined {
    const zones = generations.get(generation);
    if (zones === undefined) return 'a question by limit zones that it was not told of';
    const isUnknown =
      charges.some(([zone]) => zone >= zones.requests.length) ||
      wanted.some(([zone]) => zone >= zones.seatZones.length);
    return isUnknown ? 'a question by a limit zone that there is not' : undefined;
  }

  return {
    setZones(generation, { requestZones, connectionZones }) {
      const before = tables;
      const names = requestZones.map(({ name, perThousandSeconds, maxKeys }) =>
        JSON.stringify([name, perThousandSeconds, maxKeys]),
      );
      tables = new Map(names.map((name) => [name, before.get(name) ?? new Map()]));
      for (const { name } of connectionZones) if (!seatZones.has(name)) seatZones.set(name, seatZones.size);
      generations.set(generation, {
        requests: requestZones,
        buckets: createBuckets(
          requestZones,
          names.map((name) => tables.get(name)!),
        ),
        seatZones: connectionZones.map(({ name }) => seatZones.get(name)!),
      });
      generations.delete(generation - GENERATIONS_KEPT);
    },
    count(worker, { questions, left }) {
      const holder = holderOf(worker);
      for (const ticket of left) {
        const held = holder.tickets.get(ticket);
        if (held === undefined) return 'a ticket for seats that it does not hold';
        seats.leave(held, holder.id);
        holder.tickets.delete(ticket);
      }
      for (const question of questions) {
        const lie = lieOf(question);
        if (lie !== undefined) return lie;
      }
      return questions.map((question) => answer(holder, question, generations.get(question.zones)!));
    },
    gone(worker) {
      const holder = holders.get(worker);
      if (holder === undefined) return;
      seats.forget(holder.id);
      holders.delete(worker);
    },
  };
}
