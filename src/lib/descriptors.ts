// How many file descriptors a process of ours may have, and how many it needs.

import { readFileSync } from 'node:fs';

/** The system's limit, which Node raises as far as it may when it starts; 0: not known. Children have the same. */
export function descriptorLimit(read: () => string = readLimits): number {
  try {
    return Number(/^Max open files\s+(\d+)/m.exec(read())?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function readLimits(): string {
  return readFileSync('/proc/self/limits', 'utf8');
}

/** Each exchange takes two. Undefined: there are enough, or the limit is not known. */
export function descriptorShortage(asked: {
  readonly maxConnections: number;
  readonly workers: number;
  readonly limit: number;
}): { readonly needed: number } | undefined {
  const needed = 2 * Math.ceil(asked.maxConnections / asked.workers);
  return asked.limit === 0 || asked.limit >= needed ? undefined : { needed };
}
