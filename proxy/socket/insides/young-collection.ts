// The young generation is collected early, so that the memory which reads arrive in does not make V8 mark its whole heap.
//
// Node decrypts into blocks of memory outside the heap, and V8 marks the whole heap once 64 MiB of them have come since
// its last collection. Nearly all of them are dead by then.
// Measured: a sixth of what an upload costs.

import { uses } from './switch.ts';

/** Half of what makes V8 mark its whole heap. */
const COLLECT_EVERY = 32 * 1024 * 1024;
let latest: ArrayBufferLike | undefined;
let sinceCollection = 0;

const isOn = uses('young-collection');

/** Counts the block that a piece has arrived in. The collection needs a process with gc() (node --expose-gc). */
export function countBlock(block: ArrayBufferLike): void {
  if (block === latest || !isOn) return;
  latest = block;
  sinceCollection += block.byteLength;
  if (sinceCollection < COLLECT_EVERY) return;
  sinceCollection = 0;
  globalThis.gc?.({ type: 'minor' });
}
