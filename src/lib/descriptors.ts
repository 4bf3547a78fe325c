// How many file descriptors a process of ours may have.

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
