// Collects garbage when the process is quiet: V8 does not do so without work, and keeps the memory of a burst.

export interface IdleCollectionOptions {
  readonly everyMs?: number;
  /** Bytes alive or not, and microseconds of CPU so far. */
  readonly figures?: () => { readonly bytes: number; readonly cpuUs: number };
  readonly collect?: () => void;
}

const EVERY_MS = 10_000;
/** Memory must have grown by this much since the last collection. */
const GROWTH_BYTES = 16 * 1024 * 1024;
/** Above this part of a core the process is busy, and V8 collects by itself. */
const BUSY = 0.5;

/** Looks every ten seconds. Returns what stops it. */
export function collectWhenIdle(options: IdleCollectionOptions = {}): () => void {
  const { everyMs = EVERY_MS, figures = ownFigures, collect = collectAll } = options;
  let least = figures().bytes;
  let cpuBefore = figures().cpuUs;
  const timer = setInterval(() => {
    const { bytes, cpuUs } = figures();
    const busy = (cpuUs - cpuBefore) / (everyMs * 1_000) > BUSY;
    cpuBefore = cpuUs;
    if (bytes < least + GROWTH_BYTES) least = Math.min(least, bytes);
    else if (!busy) {
      collect();
      least = figures().bytes;
    }
  }, everyMs).unref();
  return () => clearInterval(timer);
}

function ownFigures() {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  return { bytes: heapUsed + arrayBuffers, cpuUs: user + system };
}

/** Does nothing without node --expose-gc. */
function collectAll(): void {
  globalThis.gc?.({ type: 'major' });
}
