// What clients make us hold, counted over all of them: beyond a bound, the connection that costs most is ended.

import { createRoster, type RosterMember } from '../socket/roster.ts';
import { errorCode } from './frames.ts';

/** A connection for whose streams bytes are held. */
export interface Holder extends RosterMember {
  /** Of a client. What an upstream makes us hold is held for clients, and counted there. */
  readonly isServer: boolean;
  /** Bytes queued, and bytes withheld, of all its streams. */
  held: number;
  fail(code: number, reason: string): void;
}

/**
 * What clients, all together, make us hold: of replies that they do not read, and of requests that their upstream does
 * not read. Beyond it, the connection that makes us hold most is ended.
 */
const MOST_HELD = 256 * 1024 * 1024;

const holders = createRoster<Holder>();
let heldInAll = 0;
let relieving = false;

export function hold(holder: Holder, size: number): void {
  holder.held += size;
  if (!holder.isServer) return;
  holders.add(holder);
  heldInAll += size;
  if (heldInAll > MOST_HELD) relieveSoon();
}

export function letGo(holder: Holder, size: number): void {
  holder.held -= size;
  if (!holder.isServer) return;
  heldInAll -= size;
  if (holder.held === 0) holders.remove(holder);
}

/** Not while a connection is reading: it may be the one that has to go. */
function relieveSoon(): void {
  if (relieving) return;
  relieving = true;
  setImmediate(() => {
    relieving = false;
    while (heldInAll > MOST_HELD && holders.size > 0) {
      const most = holders.list().reduce((a, b) => (b.held > a.held ? b : a));
      most.fail(errorCode.enhanceYourCalm, 'of all connections it makes us hold the most bytes');
    }
  });
}
