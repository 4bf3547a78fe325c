// Room for one more connection when there is none: the longest idle goes first, and where addresses are real, that of whoever holds most.

import ipaddr from 'ipaddr.js';
import { FIRST_WORDS_MS } from '../exchange/context.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { Roster, RosterMember } from '../socket/roster.ts';

/** A connection, as far as its room is concerned. */
export interface Occupant extends RosterMember {
  /** Whose it is; undefined where addresses are not the clients' own, or not known yet. */
  peer: string | undefined;
  /** In the deadlines' time. */
  readonly acceptedAt: number;
  /** It has been told to go, and is not counted any more. */
  leaving: boolean;
  /** Since when nothing has been under way on it, in the deadlines' time; Infinity: something is. */
  idleSince(): number;
  /** The end of a connection on which nothing is under way: orderly, and without waiting for the client. */
  leave(): void;
  /** The end of any. */
  destroy(): void;
}

export interface Capacity<T extends Occupant> {
  /** A connection has been opened, and is in the roster. False: there is no room for it. */
  admits(newcomer: T): boolean;
  /** Its client is known from now on. False: there is no room for a connection of this client. */
  admitsPeer(newcomer: T, address: string): boolean;
  /** It is closed, and no longer in the roster. */
  left(occupant: T): void;
  /** Makes room though the limit is not reached: something else has run out. Returns how many were ended. */
  relieve(most: number): number;
}

export interface CapacityOptions<T extends Occupant> {
  readonly limit: number;
  /** All connections. */
  readonly open: Roster<T>;
  readonly deadlines: Pick<Deadlines, 'now'>;
  /** Clients have addresses of their own, which come a moment after the connection: see admitsPeer(). */
  readonly knowsPeers: boolean;
  /** Called when the limit is felt, at most once in a while, with what has happened since the last time. */
  readonly onFull: (since: { readonly ended: number; readonly refused: number }) => void;
}

/** What every client may hold, however many others there are. */
const LEAST_SHARE = 8;
/** Over the limit, while it is not known whose they are. */
const UNKNOWN_PEERS = 64;
/** Connections on their way out at once; beyond these nobody is given the time to go in order. */
const MOST_LEAVING = 256;
/** A look at all connections costs some 20 ns for each of them, and is to cost a hundredth of the time. */
const PAUSE_MS_PER_CONNECTION = 0.002;
const SAY_EVERY_MS = 60_000;
/** What every client has, in a flood too, to shake hands and say its first words. */
const LEAST_WORDS_MS = 100;

interface Candidate<T> {
  readonly occupant: T;
  readonly since: number;
}

/**
 * Nothing is kept up to date while connections come and go: who is idle, and for how long, is asked of all of them when
 * there is no room. One look serves as many newcomers as it found candidates for, and looks have a distance.
 */
export function createCapacity<T extends Occupant>(options: CapacityOptions<T>): Capacity<T> {
  const { limit, open, deadlines, knowsPeers } = options;
  const counts = new Map<string, number>();
  let leaving = 0;
  /** Each with the next to go at its end. */
  let idleOfLarge: Candidate<T>[] = [];
  let idle: Candidate<T>[] = [];
  /** Connections without a first word whose time for it is not over. */
  let unspoken: Candidate<T>[] = [];
  let busyOfLarge: Candidate<T>[] = [];
  let lookedAt = Number.NEGATIVE_INFINITY;
  const said = { at: Number.NEGATIVE_INFINITY, ended: 0, refused: 0 };

  return {
    admits(newcomer) {
      if (hasRoom(0)) return true;
      if (endIdle(newcomer)) return true;
      // It may be one of a client that holds next to nothing, where another holds nearly all.
      if (knowsPeers && hasRoom(UNKNOWN_PEERS)) return true;
      return refused();
    },
    admitsPeer(newcomer, address) {
      const peer = peerOf(address);
      newcomer.peer = peer;
      const held = (counts.get(peer) ?? 0) + 1;
      counts.set(peer, held);
      if (hasRoom(0) || endIdle(newcomer)) return true;
      if (held <= share() && end(busyOfLarge, newcomer, isLarge)) return true;
      return refused();
    },
    left(occupant) {
      if (occupant.leaving) leaving--;
      forget(occupant);
    },
    relieve(most) {
      let ended = 0;
      while (ended < most && endIdle(undefined)) ended++;
      return ended;
    },
  };

  function hasRoom(beyond: number): boolean {
    return open.size - leaving <= limit + beyond;
  }

  /** No client may hold more of it than this while another waits. */
  function share(): number {
    return Math.max(LEAST_SHARE, Math.floor(limit / Math.max(1, counts.size)));
  }

  function forget(occupant: T): void {
    const { peer } = occupant;
    if (peer === undefined) return;
    occupant.peer = undefined;
    const held = counts.get(peer)! - 1;
    if (held > 0) counts.set(peer, held);
    else counts.delete(peer);
  }

  /** How many its client has. */
  function holds({ peer }: T): number {
    return peer === undefined ? 0 : counts.get(peer)!;
  }

  function isLarge(occupant: T): boolean {
    return holds(occupant) > share();
  }

  function endIdle(newcomer: T | undefined): boolean {
    if (endKnownIdle(newcomer)) return true;
    const now = deadlines.now();
    if (now - lookedAt < open.size * PAUSE_MS_PER_CONNECTION) return false;
    lookedAt = now;
    look(now);
    return endKnownIdle(newcomer);
  }

  function endKnownIdle(newcomer: T | undefined): boolean {
    return (
      end(idleOfLarge, newcomer, isLarge) ||
      end(idle, newcomer, () => true) ||
      // A flood may bring more connections than the limit within that time: the one that has waited longest goes.
      end(unspoken, newcomer, () => true)
    );
  }

  function look(now: number): void {
    idleOfLarge = [];
    idle = [];
    unspoken = [];
    busyOfLarge = [];
    open.each((occupant) => {
      if (occupant.leaving) return;
      const since = occupant.idleSince();
      const large = isLarge(occupant);
      if (since <= now) (large ? idleOfLarge : idle).push({ occupant, since });
      else if (since <= now + FIRST_WORDS_MS - LEAST_WORDS_MS) unspoken.push({ occupant, since });
      // The share of each is smaller once the newcomer's client is known: judged again when it is to go.
      else if (holds(occupant) > LEAST_SHARE) busyOfLarge.push({ occupant, since: occupant.acceptedAt });
    });
    for (const list of [idleOfLarge, idle, unspoken, busyOfLarge]) list.sort((a, b) => b.since - a.since);
  }

  /** Ends the first of the list that is still what it was when the list was made. */
  function end(list: Candidate<T>[], newcomer: T | undefined, fits: (occupant: T) => boolean): boolean {
    for (let next = list.pop(); next !== undefined; next = list.pop()) {
      const { occupant, since } = next;
      const busy = list === busyOfLarge;
      if (occupant === newcomer || occupant.leaving || (occupant.place ?? -1) === -1) continue;
      if (!fits(occupant) || (!busy && occupant.idleSince() !== since)) continue;
      occupant.leaving = true;
      leaving++;
      forget(occupant);
      said.ended++;
      say();
      if (busy || leaving > MOST_LEAVING) occupant.destroy();
      else occupant.leave();
      return true;
    }
    return false;
  }

  function refused(): false {
    said.refused++;
    say();
    return false;
  }

  function say(): void {
    const now = deadlines.now();
    if (now - said.at < SAY_EVERY_MS) return;
    const { ended, refused } = said;
    Object.assign(said, { at: now, ended: 0, refused: 0 });
    options.onFull({ ended, refused });
  }
}

/** Whose an address is: a network of 64 bits is one client's, who may have any address in it (RFC 4291 §2.5.4). */
function peerOf(address: string): string {
  if (!ipaddr.isValid(address)) return address;
  const parsed = ipaddr.process(address);
  return parsed.kind() === 'ipv4' ? address : (parsed as ipaddr.IPv6).parts.slice(0, 4).join(':');
}
