// Several workers, one upstream: what the log hears of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UpstreamChange } from '../../../proxy/listener/listener.ts';
import type { Log } from '../../../src/lib/log.ts';
import { createUpstreamNews } from '../../../src/workers/upstream-news.ts';

function hearing() {
  const lines: unknown[] = [];
  const note = (fields: { failed?: number }, text: string) => lines.push([text, fields.failed]);
  const log = { warn: note, info: note } as unknown as Log;
  return { lines, news: createUpstreamNews(log) };
}

const failing: UpstreamChange = {
  upstream: 'http://a:1',
  state: 'failing',
  code: 'upstream-refused',
  failed: 0,
};
const well = (failed: number): UpstreamChange => ({ upstream: 'http://a:1', state: 'well', failed });

test('an upstream that fails in three workers is logged once, and its recovery once, with the sum of failures', () => {
  const { lines, news } = hearing();
  const workers = [{}, {}, {}];
  for (const worker of workers) news.heard(worker, failing);
  assert.deepEqual(lines, [['upstream fails', undefined]]);
  workers.forEach((worker, i) => void news.heard(worker, well(i + 1)));
  assert.deepEqual(lines.slice(1), [['upstream answers again', 6]]);
});

test('what an ended worker told is forgotten, and a recovery without a failure is not logged', () => {
  const { lines, news } = hearing();
  const [one, two] = [{}, {}];
  news.heard(one, well(1));
  news.heard(one, failing);
  news.gone(one);
  news.heard(one, well(1));
  assert.deepEqual(lines, [['upstream fails', undefined]]);
  news.heard(two, failing);
  assert.equal(lines.length, 2);
});
