// Keeps glibc from returning the memory of an upload to the system, only to take it again page by page.
//
// glibc returns the top of its heap once 128 KiB of it are free. After the release of a block that was mapped on its own,
// twice that block's size may stay (mallopt(3), M_MMAP_THRESHOLD); nothing of this block is ever touched.
// Measured: ten page faults a MiB, a twentieth of what an upload costs.

import { uses } from './switch.ts';

const MAPPED_BLOCK = 16 * 1024 * 1024;

/** To be called once, when the process starts. */
export function keepFreedMemory(): void {
  if (uses('allocator')) Buffer.allocUnsafeSlow(MAPPED_BLOCK).buffer.transfer(0);
}
