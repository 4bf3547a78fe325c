// Waiting for something to become true.

import { setTimeout as sleep } from 'node:timers/promises';

/** Calls again and again until it resolves. Rejects with its last error after `timeoutMs`. */
export async function until<T>(attempt: () => Promise<T>, timeoutMs: number, pauseMs = 20): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(pauseMs);
    }
  }
}
