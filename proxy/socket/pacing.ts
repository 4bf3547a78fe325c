// How many requests begin in one turn of the event loop.
//
// With thousands of busy connections one turn reads from up to a thousand of them and then writes to all. What a request
// needs has left the processor's caches by the time it is written, and each request costs a tenth more. So only a few
// begin at a time. A request waits for its turn, and never for the reply to another.

/** Enough for the replies of a turn to find their receivers awake (see writes.ts). Fewer would cost 64 connections more. */
const PER_TURN = 16;
/** With so many in line receivers never sleep, and smaller turns are cheaper. */
const CROWD = 64;
const PER_CROWDED_TURN = 8;

export interface Pacer<T> {
  /** Whether `item` may begin now. If not it stands in line, and `begin` is called with it in one of the next turns. */
  admits(item: T): boolean;
}

/** `begin` must not throw; `begun` is called after those of a turn that stood in line, to send off what they wrote. */
export function createPacer<T>(begin: (item: T) => void, begun: () => void): Pacer<T> {
  let line: T[] = [];
  let next = 0;
  let admitted = 0;
  let armed = false;

  const waiting = () => line.length - next;
  const atOnce = () => (waiting() > CROWD ? PER_CROWDED_TURN : PER_TURN);
  const arm = () => {
    if (armed) return;
    armed = true;
    setImmediate(endTurn);
  };
  const endTurn = () => {
    armed = false;
    const room = Math.min(atOnce() - admitted, waiting());
    admitted = 0;
    if (room > 0) {
      for (const last = next + room; next < last; next++) begin(line[next]!);
      begun();
      // Drops what has begun. Moving the rest up every time would cost more.
      if (next * 2 >= line.length) {
        line = line.slice(next);
        next = 0;
      }
    }
    if (waiting() > 0) arm();
  };
  return {
    admits(item) {
      arm();
      if (waiting() > 0 || admitted >= PER_TURN) {
        line.push(item);
        return false;
      }
      admitted++;
      return true;
    },
  };
}
