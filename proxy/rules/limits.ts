// Limits on requests and on how many run at once, exact across workers: one process counts, the others ask it.

/*
 * Who counts. Processes share no memory that JavaScript could write to, a rate split by worker is wrong as soon as the
 * kernel does not spread connections evenly, and a key owned by one of the workers takes two hops where the supervisor
 * takes one. So the supervisor counts for all. Workers put what they ask into one message for each turn of their loop,
 * and name a key by a keyed digest: the supervisor reads no byte of a stranger. A worker remembers refusals by
 * themselves: until a bucket has leaked far enough, the answer to the same question is the same, whoever asks meanwhile,
 * because a refused request adds nothing. So a flood costs the supervisor one question for each request that may pass.
 */

export interface Charge {
  /** Place in the list of zones. */
  readonly zone: number;
  /** Never empty. */
  readonly key: string;
  readonly burst: number;
  /** How many of the burst do not wait. */
  readonly delay: number;
}

export type Verdict =
  /** How long it has to wait before it goes on. */
  | { readonly passes: true; readonly waitMs: number }
  /** How long the answer certainly stays the same, and which of the charges was too much. */
  | { readonly passes: false; readonly sameForMs: number; readonly which: number };

export interface Buckets {
  /** All of them or none. `now` in milliseconds, never going back. */
  charge(charges: readonly Charge[], now: number): Verdict;
}

interface Bucket {
  /** In thousandths of a request. */
  excess: number;
  last: number;
}

/** nginx's leaky bucket. */
export function createBuckets(
  zones: readonly { readonly perThousandSeconds: number; readonly maxKeys: number }[],
): Buckets {
  const tables = zones.map(() => new Map<string, Bucket>());
  const excessOf = ({ zone, key }: Charge, now: number): number => {
    const bucket = tables[zone]!.get(key);
    if (bucket === undefined) return 0;
    const leaked = (zones[zone]!.perThousandSeconds * (now - bucket.last)) / 1000;
    return Math.max(0, bucket.excess - leaked + 1000);
  };
  return {
    charge(charges, now) {
      let waitMs = 0;
      const excesses: number[] = [];
      for (const [which, charge] of charges.entries()) {
        const rate = zones[charge.zone]!.perThousandSeconds;
        const excess = excessOf(charge, now);
        const over = excess - charge.burst * 1000;
        if (over > 0) return { passes: false, sameForMs: Math.floor((over * 1000) / rate), which };
        waitMs = Math.max(waitMs, ((excess - charge.delay * 1000) * 1000) / rate);
        excesses.push(excess);
      }
      for (const [i, { zone, key }] of charges.entries()) {
        const table = tables[zone]!;
        // The end of a Map is what was used last.
        table.delete(key);
        table.set(key, { excess: excesses[i]!, last: now });
        if (table.size > zones[zone]!.maxKeys) table.delete(table.keys().next().value!);
      }
      return { passes: true, waitMs: Math.floor(waitMs) };
    },
  };
}

export interface Refusals {
  /** Whether one of them is known to be too much still. */
  has(charges: readonly Charge[], now: number): boolean;
  /** `askedAt`: when the question was sent, so that the memory never outlasts the fact. */
  remember(charges: readonly Charge[], verdict: Verdict, askedAt: number): void;
}

/** Of a worker. */
export function createRefusals(mostKeys = 4_096): Refusals {
  const until = new Map<string, number>();
  const nameOf = ({ zone, key, burst }: Charge) => `${zone} ${burst} ${key}`;
  return {
    has: (charges, now) =>
      until.size > 0 &&
      charges.some((charge) => (until.get(nameOf(charge)) ?? Number.NEGATIVE_INFINITY) > now),
    remember(charges, verdict, askedAt) {
      if (verdict.passes || verdict.sameForMs <= 0) return;
      const name = nameOf(charges[verdict.which]!);
      until.delete(name);
      until.set(name, askedAt + verdict.sameForMs);
      if (until.size > mostKeys) until.delete(until.keys().next().value!);
    },
  };
}

export interface Seat {
  /** Its name: what is held outlasts rules that are read again with their zones in another order. */
  readonly zone: string;
  readonly key: string;
  readonly max: number;
}

export interface Seats {
  /** All of them or none. `holder` is the worker. */
  take(seats: readonly Seat[], holder: number): boolean;
  leave(seats: readonly Pick<Seat, 'zone' | 'key'>[], holder: number): void;
  /** The holder is gone, with all that it held. */
  forget(holder: number): void;
}

/** How many requests of a key are under way. */
export function createSeats(): Seats {
  const counts = new Map<string, number>();
  const held = new Map<number, Map<string, number>>();
  const nameOf = ({ zone, key }: Pick<Seat, 'zone' | 'key'>) => `${zone}\0${key}`;
  const add = (map: Map<string, number>, name: string, by: number) => {
    const count = (map.get(name) ?? 0) + by;
    if (count > 0) map.set(name, count);
    else map.delete(name);
  };
  return {
    take(seats, holder) {
      if (seats.some((seat) => (counts.get(nameOf(seat)) ?? 0) >= seat.max)) return false;
      const own = held.get(holder) ?? new Map<string, number>();
      held.set(holder, own);
      for (const seat of seats) {
        add(counts, nameOf(seat), 1);
        add(own, nameOf(seat), 1);
      }
      return true;
    },
    leave(seats, holder) {
      const own = held.get(holder);
      if (own === undefined) return;
      for (const seat of seats) {
        if (!own.has(nameOf(seat))) continue;
        add(counts, nameOf(seat), -1);
        add(own, nameOf(seat), -1);
      }
    },
    forget(holder) {
      for (const [name, count] of held.get(holder) ?? []) add(counts, name, -count);
      held.delete(holder);
    },
  };
}

export type Charged = { readonly waitMs: number } | 'requests' | 'seats';

export interface Limiter {
  /** `done` may be called at once. Seats are taken only where both let it pass. */
  charge(charges: readonly Charge[], seats: readonly Seat[], done: (result: Charged) => void): void;
  leave(seats: readonly Seat[]): void;
}

const HERE = 0;

/** Counts in this process alone. */
export function createLocalLimiter(
  zones: Parameters<typeof createBuckets>[0],
  now: () => number = () => performance.now(),
): Limiter {
  const buckets = createBuckets(zones);
  const refusals = createRefusals();
  const seats = createSeats();
  return {
    charge(charges, wanted, done) {
      const time = now();
      if (refusals.has(charges, time)) return done('requests');
      const verdict: Verdict = buckets.charge(charges, time);
      if (!verdict.passes) {
        refusals.remember(charges, verdict, time);
        return done('requests');
      }
      done(seats.take(wanted, HERE) ? { waitMs: verdict.waitMs } : 'seats');
    },
    leave: (held) => seats.leave(held, HERE),
  };
}
