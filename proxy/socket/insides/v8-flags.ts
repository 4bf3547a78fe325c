// What V8 is told in a process that serves.
//
// Measured: the young generation's size is worth a tenth of a request with 4,096 connections; the way in which memory
// is freed is worth a fifth of an upload.

import { uses } from './switch.ts';

/**
 * What a request allocates, some 2.4 KiB, lives as long as the request: with thousands of them open, a young generation
 * of 1 MiB copies all of it into the old one. With a floor under the old one's limit, a heap of some 10 MiB is not marked
 * for the memory that an upload comes in: it may grow to 36 MiB first. gc() is for young-collection.ts.
 */
const HEAP = ['--max-semi-space-size=16', '--initial-old-space-size=36', '--expose-gc'];

/** Memory that is freed by the thread that took it is taken again at once; freed by a collector's, it costs more. */
const BUFFERS = '--no-concurrent-array-buffer-sweeping';

/** Whether a process uses them is its supervisor's to say: they go on its command line. */
export const V8_FLAGS: readonly string[] = uses('v8-flags') ? [...HEAP, BUFFERS] : [];
