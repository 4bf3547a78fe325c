// One at a time, in the order asked: for what is read and rewritten as a whole, where two writers would undo each other.

/** Runs each piece of work after the one before it has ended, whether that succeeded or failed. */
export function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work, work);
    last = mine.catch(() => {});
    return mine;
  };
}
