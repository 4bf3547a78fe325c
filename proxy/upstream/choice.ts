// Which of several addresses a request goes to, where rules say how: by turns, by load, by a key or by chance.

import { hash } from 'node:crypto';
import type { Choice, ServerShare } from '../rules/routes.ts';

/** What an address is to one group; another group may give it another share. */
export interface Place {
  readonly weight: number;
  readonly backup: boolean;
  /** Infinity: no limit. */
  readonly most: number;
  /** Of its address: what keys are drawn with. */
  readonly seed: number;
  /** How much it is owed. */
  owed: number;
}

/** `left-out`: requests to it have failed. */
export type Open = 'yes' | 'left-out' | 'no';

type Loaded = Place & { readonly endpoint: { readonly active: number } };

/** `of`: how many addresses share the weight. */
export function placeOf(
  { weight = 1, backup = false, maxConnections = 0 }: ServerShare,
  of: number,
  address: string,
): Place {
  const most = maxConnections > 0 ? maxConnections : Number.POSITIVE_INFINITY;
  return { weight: weight / Math.max(1, of), backup, most, seed: numberOf(address), owed: 0 };
}

/** Of those that are open; those that stand by only where no other is. Undefined: none is open. */
export function choose<T extends Loaded>(
  choice: Choice,
  places: readonly T[],
  open: (place: T) => Open,
  key: string | undefined,
  random: () => number = Math.random,
): T | undefined {
  const free = places.filter((place) => open(place) === 'yes');
  const first = free.filter(({ backup }) => !backup);
  const candidates = first.length > 0 ? first : free;
  if (candidates.length <= 1) return candidates[0];
  switch (choice) {
    case 'least':
      return inTurn(leastLoaded(candidates));
    case 'random':
      return drawn(candidates, random);
    case 'best-of-two':
      return betterOfTwo(candidates, random);
    case 'key':
      return key === undefined ? inTurn(candidates) : ofKey(candidates, key);
    case 'turns':
      return inTurn(candidates);
  }
}

/** In turns that are spread evenly: each is owed its weight with every turn, and who is owed most has it and owes the sum. */
function inTurn<T extends Place>(candidates: readonly T[]): T {
  let sum = 0;
  let best = candidates[0]!;
  for (const place of candidates) {
    place.owed += place.weight;
    sum += place.weight;
    if (place.owed > best.owed) best = place;
  }
  best.owed -= sum;
  return best;
}

function leastLoaded<T extends Loaded>(candidates: readonly T[]): T[] {
  const least = Math.min(...candidates.map(loadOf));
  return candidates.filter((place) => loadOf(place) === least);
}

function loadOf({ endpoint, weight }: Loaded): number {
  return endpoint.active / weight;
}

function drawn<T extends Place>(candidates: readonly T[], random: () => number): T {
  let left = random() * candidates.reduce((sum, { weight }) => sum + weight, 0);
  for (const place of candidates) {
    left -= place.weight;
    if (left < 0) return place;
  }
  return candidates.at(-1)!;
}

function betterOfTwo<T extends Loaded>(candidates: readonly T[], random: () => number): T {
  const one = drawn(candidates, random);
  const other = drawn(
    candidates.filter((place) => place !== one),
    random,
  );
  return loadOf(other) < loadOf(one) ? other : one;
}

/**
 * Each gets a number by key and address, and the highest has it (rendezvous hashing): one that comes or goes moves its own
 * keys alone. The same in all processes.
 */
function ofKey<T extends Place>(candidates: readonly T[], key: string): T {
  const number = numberOf(key);
  let best = candidates[0]!;
  let highest = Number.NEGATIVE_INFINITY;
  for (const place of candidates) {
    const share = -place.weight / Math.log((mixed(number ^ place.seed) + 0.5) / 2 ** 32);
    if (share <= highest) continue;
    highest = share;
    best = place;
  }
  return best;
}

function numberOf(text: string): number {
  return hash('sha256', text, 'buffer').readUInt32BE(0);
}

/** Every bit of the result depends on every bit of the number (the finalizer of MurmurHash3). */
function mixed(number: number): number {
  let h = number;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
