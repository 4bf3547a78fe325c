// Runs an action one at a time. Requests that come meanwhile are answered by one more run, with what is newest then.

/**
 * The function that is returned resolves with the end of a run that began after the call, or rejects as that run does.
 * `apply` has to read what it applies when it begins: so the last run to end has applied what was asked for last.
 */
export function newestWins(apply: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> = Promise.resolve();
  let waiting: Promise<void> | undefined;
  return () => {
    waiting ??= running
      .catch(() => {})
      .then(() => {
        waiting = undefined;
        running = apply();
        return running;
      });
    return waiting;
  };
}
