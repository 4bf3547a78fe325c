// Room for one more connection when the limit is reached: the longest idle one is ended, first those of clients that hold many.

import ipaddr from 'ipaddr.js';
import { FIRST_WORDS_MS } from '../exchange/context.ts';
import type { Deadlines } from '../socket/deadlines.ts';
import type { Roster, RosterMember } from '../socket/roster.ts';

/** A connection that takes a place. */
export interface Occupant extends RosterMember {
  /** Its client; undefined where addresses are not the clients' own, or are not known yet. */
  peer: string | undefined;
  /** In the deadlines' time. */
  readonly acceptedAt: number;
  /** It has been told to end, and is not counted any more. */
  leaving: boolean;
  /** Since when nothing has been under way on it, in the deadlines' time; Infinity: something is. */
  idleSince(): number;
  /** Ends it in order, when nothing is under way on it, and does not wait for the client. */
  leave(): void;
  /** Ends it, whatever is under way. */
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
/** Connections over the limit that are let in until their client is known. */
const UNKNOWN_PEERS = 64;
/** So many connections may be ending in order at the same time; beyond these they are destroyed. */
const MOST_LEAVING = 256;
/** A look costs some 20 ns for each connection; with this pause looks take a hundredth of the time. */
const PAUSE_MS_PER_CONNECTION = 0.002;
const SAY_EVERY_MS = 60_000;
/** Every client has this long for its handshake and first words, even in a flood. */
const LEAST_WORDS_MS = 100;

interface Candidate<T> {
  readonly occupant: T;
  readonly since: number;
}

export function createCapacity<T extends Occupant>(options: CapacityOptions<T>): Capacity<T> {
  return new Places(options);
}

/**
 * Nothing is kept up to date while connections come and go: when there is no room, all connections are asked whether they
 * are idle and since when. One look serves as many newcomers as it found candidates, and there is a pause between looks.
 */
class Places<T extends Occupant> implements Capacity<T> {
  private readonly options: CapacityOptions<T>;
  /** How many connections each client has. */
  private readonly counts = new Map<string, number>();
  private leaving = 0;
  /** Of these lists the last is the next to go. */
  private idleOfLarge: Candidate<T>[] = [];
  private idle: Candidate<T>[] = [];
  /** Connections without a first word whose time for it is not over. */
  private unspoken: Candidate<T>[] = [];
  private busyOfLarge: Candidate<T>[] = [];
  private lookedAt = Number.NEGATIVE_INFINITY;
  private readonly said = { at: Number.NEGATIVE_INFINITY, ended: 0, refused: 0 };

  constructor(options: CapacityOptions<T>) {
    this.options = options;
  }

  admits(newcomer: T): boolean {
    if (this.hasRoom(0)) return true;
    if (this.endIdle(newcomer)) return true;
    // Its client may hold next to nothing where another holds nearly all: that is known once its address is.
    if (this.options.knowsPeers && this.hasRoom(UNKNOWN_PEERS)) return true;
    return this.refused();
  }

  admitsPeer(newcomer: T, address: string): boolean {
    const peer = peerOf(address);
    newcomer.peer = peer;
    const held = (this.counts.get(peer) ?? 0) + 1;
    this.counts.set(peer, held);
    if (this.hasRoom(0) || this.endIdle(newcomer)) return true;
    if (held <= this.share() && this.end(this.busyOfLarge, newcomer, (one) => this.isLarge(one))) return true;
    return this.refused();
  }

  left(occupant: T): void {
    if (occupant.leaving) this.leaving--;
    this.forget(occupant);
  }

  relieve(most: number): number {
    let ended = 0;
    while (ended < most && this.endIdle(undefined)) ended++;
    return ended;
  }

  private hasRoom(beyond: number): boolean {
    return this.options.open.size - this.leaving <= this.options.limit + beyond;
  }

  /** No client may hold more of it than this while another waits. */
  private share(): number {
    return Math.max(LEAST_SHARE, Math.floor(this.options.limit / Math.max(1, this.counts.size)));
  }

  private forget(occupant: T): void {
    const { peer } = occupant;
    if (peer === undefined) return;
    occupant.peer = undefined;
    const held = this.counts.get(peer)! - 1;
    if (held > 0) this.counts.set(peer, held);
    else this.counts.delete(peer);
  }

  /** How many its client has. */
  private holds({ peer }: T): number {
    return peer === undefined ? 0 : this.counts.get(peer)!;
  }

  private isLarge(occupant: T): boolean {
    return this.holds(occupant) > this.share();
  }

  private endIdle(newcomer: T | undefined): boolean {
    if (this.endKnownIdle(newcomer)) return true;
    const now = this.options.deadlines.now();
    if (now - this.lookedAt < this.options.open.size * PAUSE_MS_PER_CONNECTION) return false;
    this.lookedAt = now;
    this.look(now);
    return this.endKnownIdle(newcomer);
  }

  private endKnownIdle(newcomer: T | undefined): boolean {
    return (
      this.end(this.idleOfLarge, newcomer, (one) => this.isLarge(one)) ||
      this.end(this.idle, newcomer, () => true) ||
      // A flood may bring more connections than the limit within that time: then the one that has waited longest goes.
      this.end(this.unspoken, newcomer, () => true)
    );
  }

  private look(now: number): void {
    this.idleOfLarge = [];
    this.idle = [];
    this.unspoken = [];
    this.busyOfLarge = [];
    this.options.open.each((occupant) => {
      if (occupant.leaving) return;
      const since = occupant.idleSince();
      const large = this.isLarge(occupant);
      if (since <= now) (large ? this.idleOfLarge : this.idle).push({ occupant, since });
      else if (since <= now + FIRST_WORDS_MS - LEAST_WORDS_MS) this.unspoken.push({ occupant, since });
      // The share of each is smaller once the newcomer's client is known: judged again when it is to go.
      else if (this.holds(occupant) > LEAST_SHARE)
        this.busyOfLarge.push({ occupant, since: occupant.acceptedAt });
    });
    for (const list of [this.idleOfLarge, this.idle, this.unspoken, this.busyOfLarge])
      list.sort((a, b) => b.since - a.since);
  }

  /** Ends the first of the list that is still what it was when the list was made. */
  private end(list: Candidate<T>[], newcomer: T | undefined, fits: (occupant: T) => boolean): boolean {
    for (let next = list.pop(); next !== undefined; next = list.pop()) {
      const { occupant, since } = next;
      const busy = list === this.busyOfLarge;
      if (occupant === newcomer || occupant.leaving || (occupant.place ?? -1) === -1) continue;
      if (!fits(occupant) || (!busy && occupant.idleSince() !== since)) continue;
      occupant.leaving = true;
      this.leaving++;
      this.forget(occupant);
      this.said.ended++;
      this.say();
      if (busy || this.leaving > MOST_LEAVING) occupant.destroy();
      else occupant.leave();
      return true;
    }
    return false;
  }

  private refused(): false {
    this.said.refused++;
    this.say();
    return false;
  }

  private say(): void {
    const now = this.options.deadlines.now();
    if (now - this.said.at < SAY_EVERY_MS) return;
    const { ended, refused } = this.said;
    Object.assign(this.said, { at: now, ended: 0, refused: 0 });
    this.options.onFull({ ended, refused });
  }
}

/** The client that has an address: a network of 64 bits belongs to one, which may use any address in it (RFC 4291 §2.5.4). */
function peerOf(address: string): string {
  if (!ipaddr.isValid(address)) return address;
  const parsed = ipaddr.process(address);
  return parsed.kind() === 'ipv4' ? address : (parsed as ipaddr.IPv6).parts.slice(0, 4).join(':');
}
