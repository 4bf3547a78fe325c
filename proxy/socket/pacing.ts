// How many requests begin in one turn of the event loop.
//
// Where thousands of connections have something to say, a turn reads from up to a thousand of them, then writes to all:
// what a request needs has left the processor's caches before it is asked for again, and each costs a tenth more. A few
// at a time are through before the next begin. Nobody waits for a reply to another: only for his turn.

/** As many replies as find their receivers awake (see writes.ts): with fewer, 64 connections would cost more. */
const PER_TURN = 16;
/** So many in line are a crowd: receivers never sleep, and a smaller turn is the cheaper. */
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
      // What has begun is let go of, but not by moving the others up every time.
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
