// One at a time: for APIs that can only be read and rewritten as a whole, where two writers would undo each other.

/** Runs what it is given in the order given, each after the one before has ended, well or not. */
export function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work, work);
    last = mine.catch(() => {});
    return mine;
  };
}
