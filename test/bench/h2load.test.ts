// What h2load says is read exactly, and nothing is read into other text.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseH2load } from '../../bench/load/h2load.ts';
import { agree } from '../../bench/load/wrk.ts';

const summary = (failed: number) => `
finished in 2.00s, 5000.00 req/s, 5.01MB/s
requests: 10000 total, 10128 started, 10000 done, ${10_000 - failed} succeeded, ${failed} failed, 1 errored, 0 timeout
status codes: ${10_000 - failed} 2xx, 0 3xx, ${failed} 4xx, 0 5xx
traffic: 10.02MB (10506240) total, 156.25KB (160000) headers (space savings 90.00%), 9.77MB (10240000) data
`;

test('counts of requests, failures, statuses and body bytes are found', () => {
  assert.deepEqual(parseH2load(summary(3)), { succeeded: 9_997, failed: 3, good: 9_997, data: 10_240_000 });
});

test('a text without a summary is an error, not a run without failures', () => {
  assert.throws(() => parseH2load('could not connect'), /no summary: could not connect/);
});

test('requests that never reached the upstream are noticed', () => {
  agree(10_000, 10_060, 64);
  assert.throws(() => agree(10_000, 5_000, 64), /counted 10000 requests, the upstream 5000/);
});
