// Spans on their way to a collector that refuses, hangs, lies or is away: what is tried again, what is counted, what is said.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CollectorSettings } from '../../../src/config/tracing.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { createLog } from '../../../src/lib/log.ts';
import { createExporter } from '../../../src/tracing/exporter.ts';
import { nanoseconds, type Span, spanKind } from '../../../src/tracing/span.ts';
import {
  type CollectorDouble,
  type CollectorManner,
  manners,
  refuses,
  startCollector,
} from '../../support/collector-double.ts';
import { freePort } from '../../support/ports.ts';
import { eventually } from '../../support/proxy.ts';

const SECRET = 'Bearer a-key-of-the-collector';

function spans(count: number): Span[] {
  return Array.from({ length: count }, (_, i) => ({
    trace: (i + 1).toString(16).padStart(32, '0'),
    span: (i + 1).toString(16).padStart(16, '0'),
    parent: '',
    parentIsRemote: false,
    name: 'GET',
    kind: spanKind.server,
    start: nanoseconds(1_700_000_000_000.5),
    end: nanoseconds(1_700_000_000_001.75),
    attributes: [['http.response.status_code', 200]],
    error: undefined,
  }));
}

interface Exporting {
  readonly settings?: Partial<CollectorSettings>;
}

function exporting(t: TestContext, { port }: Pick<CollectorDouble, 'port'>, { settings }: Exporting = {}) {
  const lines: Record<string, unknown>[] = [];
  const waits: number[] = [];
  const exporter = createExporter({
    collector: {
      url: `http://127.0.0.1:${port}/v1/traces`,
      encoding: 'json',
      headers: { authorization: SECRET },
      gzip: false,
      timeoutMs: 2_000,
      ca: undefined,
      ...settings,
    },
    resource: [['service.name', 'under test']],
    scope: { name: 'test', version: '1' },
    log: createLog({
      level: 'info',
      readable: false,
      stream: { write: (line: string) => void lines.push(JSON.parse(line)) } as never,
    }),
    // Nobody waits in a test, but who waits for how long is told.
    clock: {
      ...systemClock,
      async sleep(ms, signal) {
        waits.push(ms);
        await systemClock.sleep(1, signal);
      },
    },
    random: () => 0,
    delayMs: 1,
  });
  t.after(() => exporter.close(0));
  return { exporter, lines, waits, said: () => lines.map(({ msg }) => msg) };
}

async function collecting(t: TestContext, manner?: CollectorManner) {
  const collector = await startCollector(manner);
  t.after(() => collector.close());
  return collector;
}

const sum = ({
  exported,
  rejected,
  failed,
  dropped,
}: ReturnType<ReturnType<typeof createExporter>['counts']>) => exported + rejected + failed + dropped;

test('spans arrive once, in batches, with the headers and as OTLP writes them', async (t) => {
  const collector = await collecting(t);
  const { exporter, said } = exporting(t, collector);
  exporter.take(spans(1_200));
  await eventually(() => exporter.counts().exported === 1_200);
  assert.equal(exporter.queued, 0);
  assert.equal(new Set(collector.spans().map(({ spanId }) => spanId)).size, 1_200);
  assert.equal(collector.requests.length, 3);
  const [{ path, headers }] = collector.requests as [(typeof collector.requests)[0]];
  assert.deepEqual(
    [path, headers['content-type'], headers.authorization],
    ['/v1/traces', 'application/json', SECRET],
  );
  const [first] = collector.spans();
  assert.deepEqual(first, {
    traceId: '1'.padStart(32, '0'),
    spanId: '1'.padStart(16, '0'),
    name: 'GET',
    kind: 2,
    start: 1_700_000_000_000_500_000n,
    end: 1_700_000_000_001_750_000n,
    status: undefined,
    message: undefined,
    flags: 0x101,
    attributes: { 'http.response.status_code': 200 },
  });
  assert.deepEqual(collector.resource(), { 'service.name': 'under test' });
  assert.deepEqual(said(), []);
});

test('compressed, if that is asked for', async (t) => {
  const collector = await collecting(t);
  const { exporter } = exporting(t, collector, { settings: { gzip: true } });
  exporter.take(spans(2));
  await eventually(() => exporter.counts().exported === 2);
  assert.equal(collector.requests[0]!.headers['content-encoding'], 'gzip');
  assert.equal(collector.spans().length, 2);
});

test('429 and 503 are tried again, no sooner than they ask; then all is well, and both are said once', async (t) => {
  const answers = [
    refuses(429, { 'retry-after': '7' }),
    refuses(503),
    refuses(503, { 'retry-after': '999999' }),
  ];
  const collector = await collecting(t, (response, i) => (answers[i] ?? manners.takes)(response, i));
  const { exporter, waits, said } = exporting(t, collector);
  exporter.take(spans(3));
  await eventually(() => exporter.counts().exported === 3);
  assert.equal(collector.requests.length, 4);
  // Half of what it may be, with that random; and never longer than is worth it.
  assert.deepEqual(waits, [7_000, 1_000, 60_000]);
  assert.deepEqual(said(), [
    'the collector takes no spans; requests go on without',
    'the collector takes spans again',
  ]);
});

test('a date in Retry-After is waited for, and what cannot be read is not', async (t) => {
  const later = new Date(Date.now() + 30_000).toUTCString();
  const answers = [refuses(503, { 'retry-after': later }), refuses(503, { 'retry-after': 'when I like' })];
  const collector = await collecting(t, (response, i) => (answers[i] ?? manners.takes)(response, i));
  const { exporter, waits } = exporting(t, collector);
  exporter.take(spans(1));
  await eventually(() => exporter.counts().exported === 1);
  assert.ok(waits[0]! > 20_000 && waits[0]! <= 30_000, `waited ${waits[0]} ms`);
  assert.equal(waits[1], 1_000);
});

test('what will not be better next time is sent once', async (t) => {
  for (const status of [400, 401, 404, 413, 500, 301]) {
    const collector = await collecting(t, refuses(status, { location: 'http://127.0.0.1:1/' }));
    const { exporter, lines } = exporting(t, collector);
    exporter.take(spans(3));
    await eventually(() => exporter.counts().rejected === 3);
    assert.equal(collector.requests.length, 1, `status ${status}`);
    assert.equal(lines[0]!.why, `status ${status}`);
  }
});

test('what a collector took only in part is counted, and said with its own words', async (t) => {
  const partial = { partialSuccess: { rejectedSpans: '2', errorMessage: `quota\u0007${'!'.repeat(1_000)}` } };
  const collector = await collecting(t, (response) => response.end(JSON.stringify(partial)));
  const { exporter, lines } = exporting(t, collector);
  exporter.take(spans(5));
  await eventually(() => sum(exporter.counts()) === 5);
  const { exported, rejected } = exporter.counts();
  assert.deepEqual([exported, rejected], [3, 2]);
  assert.equal(lines.length, 1);
  assert.match(String(lines[0]!.why), /^quota/);
  assert.ok(String(lines[0]!.why).length <= 300);
});

test('a collector that claims to refuse more than it was sent, or fewer than none, refuses nothing more', async (t) => {
  for (const [rejectedSpans, expected] of [
    ['99999999999999999999', 5],
    ['-3', 0],
    ['NaN', 0],
    [{}, 0],
  ] as const) {
    const collector = await collecting(t, (response) =>
      response.end(JSON.stringify({ partialSuccess: { rejectedSpans } })),
    );
    const { exporter } = exporting(t, collector);
    exporter.take(spans(5));
    await eventually(() => sum(exporter.counts()) === 5);
    assert.equal(exporter.counts().rejected, expected, JSON.stringify(rejectedSpans));
  }
});

test('one that answers with what is no answer has taken them; one that is no server of HTTP has not', async (t) => {
  const garbage = await collecting(t, manners.garbage);
  const one = exporting(t, garbage);
  one.exporter.take(spans(2));
  await eventually(() => one.exporter.counts().exported === 2);
  assert.deepEqual(one.said(), []);

  const noHttp = await collecting(t, manners.noHttp);
  const other = exporting(t, noHttp);
  other.exporter.take(spans(2));
  await eventually(() => other.exporter.counts().failed === 2);
  assert.equal(noHttp.requests.length, 1);
});

test('an answer without end is read no further, and one that never comes is not waited for', async (t) => {
  const endless = await collecting(t, manners.endless);
  const one = exporting(t, endless);
  one.exporter.take(spans(2));
  await eventually(() => one.exporter.counts().failed === 2);
  assert.equal(endless.requests.length, 1);

  for (const manner of [manners.hangs, manners.trickles, manners.cuts]) {
    const collector = await collecting(t, manner);
    const { exporter, said } = exporting(t, collector, { settings: { timeoutMs: 30 } });
    exporter.take(spans(2));
    await eventually(() => exporter.counts().failed === 2);
    // Five attempts, which it may not have heard of.
    assert.ok(collector.requests.length <= 5);
    assert.deepEqual(said(), ['the collector takes no spans; requests go on without']);
  }
});

test('with nobody there it keeps so many, counts the others, and says so once', async (t) => {
  const { exporter, said, waits, lines } = exporting(t, { port: await freePort() });
  for (let i = 0; i < 20; i++) exporter.take(spans(1_000));
  assert.equal(exporter.queued, 4_096);
  assert.equal(exporter.counts().dropped, 20_000 - 4_096);
  await eventually(() => exporter.counts().failed === 4_096);
  assert.equal(exporter.queued, 0);
  assert.equal(waits.length, 4 * 8);
  assert.deepEqual(said(), ['the collector takes no spans; requests go on without']);
  assert.ok(!JSON.stringify(lines).includes('a-key-of'), 'the header is in the log');
});

test('at the end what waits is sent, without patience; what is not taken is said', async (t) => {
  const collector = await collecting(t);
  const { exporter } = exporting(t, collector);
  exporter.take(spans(1_300));
  await exporter.close(10_000);
  assert.equal(exporter.counts().exported, 1_300);
  exporter.take(spans(2));
  assert.equal(exporter.counts().dropped, 2);

  const hanging = await collecting(t, manners.hangs);
  const other = exporting(t, hanging, { settings: { timeoutMs: 600_000 } });
  other.exporter.take(spans(1_300));
  await eventually(() => hanging.requests.length === 1);
  await other.exporter.close(50);
  assert.equal(other.exporter.counts().failed, 1_300);
  assert.equal(other.said().at(-1), 'not every span has reached the collector');

  const refusing = await collecting(t, refuses(503, { 'retry-after': '60' }));
  const third = exporting(t, refusing);
  third.exporter.take(spans(3));
  await third.exporter.close(10_000);
  assert.equal(third.exporter.counts().failed, 3);
});
