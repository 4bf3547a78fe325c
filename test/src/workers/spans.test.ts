// Requests as spans: what is recorded of them in all four pairings, what may cross to the supervisor, and how much of it.

import assert from 'node:assert/strict';
import { describe, it, type TestContext, test } from 'node:test';
import { createTracing } from '../../../proxy/exchange/tracing.ts';
import { spansOf } from '../../../src/tracing/request-spans.ts';
import type { Span } from '../../../src/tracing/span.ts';
import { LONGEST_FROM_WORKER } from '../../../src/workers/channel.ts';
import { SPANS, spanLayout } from '../../../src/workers/counters.ts';
import { FromWorkerSchema, type RecordedRequest } from '../../../src/workers/messages.ts';
import { createSpanRecorder, type SpanRecorderOptions } from '../../../src/workers/spans.ts';
import { type Ask, join, type Pairing, pairings, type Script, serve } from '../../support/pairings.ts';
import { eventually, HOST } from '../../support/proxy.ts';

function recording(options: Partial<SpanRecorderOptions> = {}) {
  const recorded: RecordedRequest[] = [];
  const numbers = new Float64Array(spanLayout.names.length);
  const messages: number[] = [];
  const recorder = createSpanRecorder({
    numbers,
    query: undefined,
    send(requests) {
      messages.push(Buffer.byteLength(JSON.stringify({ recorded: requests })));
      const message = FromWorkerSchema.parse(JSON.parse(JSON.stringify({ recorded: requests })));
      recorded.push(...(message as { recorded: RecordedRequest[] }).recorded);
    },
    backlog: () => 0,
    everyMs: 1,
    ...options,
  });
  return { recorder, recorded, numbers, messages };
}

const all = { followsParent: true, ratio: 1 };
const PARENT = `00-${'1a'.repeat(16)}-${'2b'.repeat(8)}-01`;

async function spansFor(
  t: TestContext,
  pairing: Pairing,
  script: Script,
  ask: Ask,
  options: Partial<SpanRecorderOptions> = {},
) {
  const { recorder, recorded } = recording(options);
  const { port, requests } = await serve(t, pairing.upstream, script);
  const { client } = await join(t, pairing, port, {
    options: {
      tracing: createTracing(all),
      observer: recorder.observer,
      trustedForwarders: ['127.0.0.1/32'],
    },
  });
  const asking = client();
  const before = Date.now() - 1;
  const done = asking.ask(ask).catch(() => undefined);
  return {
    port,
    requests,
    asking,
    async spans() {
      await eventually(() => recorded.length === 1);
      await done;
      const spans = spansOf(recorded[0]!);
      for (const { start, end } of spans) {
        assert.ok(start >= BigInt(before) * 1_000_000n && end >= start, 'it lies in the time of the test');
        assert.ok(end <= BigInt(Date.now() + 2) * 1_000_000n);
      }
      const server = spans.at(-1)!;
      return { server, tries: spans.slice(0, -1), facts: Object.fromEntries(server.attributes) };
    },
  };
}

const factsOf = ({ attributes }: Span) => Object.fromEntries(attributes);

for (const pairing of pairings) {
  describe(pairing.name, () => {
    it('a request that is served: a span of the server, and one below it for the upstream', async (t) => {
      const headers = { 'user-agent': 'me/1', traceparent: PARENT };
      const script: Script = (served) => void served.body.then(() => served.reply(201, 'ok'));
      const ask = { method: 'POST', path: '/a/b?token=x&y=2', body: 'four', headers };
      const { port, requests, spans } = await spansFor(t, pairing, script, ask);
      const { server, tries, facts } = await spans();
      assert.deepEqual(facts, {
        'http.request.method': 'POST',
        'url.scheme': 'https',
        'url.path': '/a/b',
        'server.address': HOST,
        'server.port': facts['server.port'],
        'http.route': `${HOST}/`,
        'http.response.status_code': 201,
        'http.request.body.size': 4,
        'http.response.body.size': 2,
        'network.protocol.name': 'http',
        'network.protocol.version': pairing.client === 'h2' ? '2' : '1.1',
        'tls.protocol.version': '1.3',
        'client.address': '127.0.0.1',
        'user_agent.original': 'me/1',
      });
      assert.deepEqual(
        [server.name, server.kind, server.trace, server.parent, server.parentIsRemote, server.error],
        [`POST ${HOST}/`, 2, '1a'.repeat(16), '2b'.repeat(8), true, undefined],
      );
      const [one] = tries as [Span];
      assert.deepEqual(
        [tries.length, one.name, one.kind, one.trace, one.parent, one.error],
        [1, 'POST', 3, server.trace, server.span, undefined],
      );
      assert.deepEqual(factsOf(one), {
        'http.request.method': 'POST',
        'url.scheme': 'http',
        'server.address': '127.0.0.1',
        'server.port': port,
        'http.response.status_code': 201,
      });
      // The upstream was told of the very span that it belongs under.
      assert.equal(requests[0]!.headers.traceparent, `00-${one.trace}-${one.span}-01`);
      assert.ok(one.start >= server.start && one.end <= server.end);
    });

    it('a request that is sent again: each attempt, and why the first failed', async (t) => {
      const script: Script = (served) => (served.index === 0 ? served.cut() : served.reply(200, 'ok'));
      const { requests, spans } = await spansFor(t, pairing, script, {});
      const { server, tries, facts } = await spans();
      assert.equal(facts['dstack_ingress.attempts'], 2);
      assert.deepEqual(
        tries.map((one) => [
          factsOf(one)['error.type'],
          factsOf(one)['http.request.resend_count'],
          one.error,
        ]),
        [
          ['upstream-closed', undefined, ''],
          [undefined, 1, undefined],
        ],
      );
      assert.deepEqual(
        tries.map(({ span }) => `00-${server.trace}-${span}-01`),
        requests.map(({ headers }) => headers.traceparent),
      );
    });

    it('an upstream that fails: an error here and there; one that refuses a client, there alone', async (t) => {
      const bad = await (await spansFor(t, pairing, (served) => served.reply(503, 'no'), {})).spans();
      assert.deepEqual([bad.server.error, bad.facts['error.type']], ['', '503']);
      assert.deepEqual([bad.tries[0]!.error, factsOf(bad.tries[0]!)['error.type']], ['', '503']);
      const refused = await (await spansFor(t, pairing, (served) => served.reply(404, 'no'), {})).spans();
      assert.deepEqual([refused.server.error, refused.facts['error.type']], [undefined, undefined]);
      assert.deepEqual([refused.tries[0]!.error, factsOf(refused.tries[0]!)['error.type']], ['', '404']);
    });

    it('a request that no upstream gets, and one whose client goes away', async (t) => {
      const { server, tries, facts } = await (
        await spansFor(t, pairing, () => {}, { host: 'other.example.com', method: 'MKCOL' })
      ).spans();
      assert.deepEqual([tries.length, server.name, server.error], [0, 'HTTP', undefined]);
      assert.deepEqual(
        [facts['http.request.method'], facts['http.request.method_original'], facts['http.route']],
        ['_OTHER', 'MKCOL', undefined],
      );
      assert.deepEqual([facts['http.response.status_code'], facts['error.type']], [404, 'no-route']);

      const gone = await spansFor(t, pairing, () => {}, {});
      await eventually(() => gone.requests.length === 1);
      gone.asking.close();
      const left = await gone.spans();
      assert.deepEqual(
        [left.facts['http.response.status_code'], left.facts['error.type']],
        [499, 'client-closed'],
      );
      assert.equal(factsOf(left.tries[0]!)['error.type'], 'client-closed');
      assert.equal(left.server.error, undefined);
    });
  });
}

const [pairing] = pairings as [Pairing];

test('a query is shown if that is asked for, without what is secret', async (t) => {
  const query = { redact: ['y'] };
  const { spans } = await spansFor(
    t,
    pairing,
    (served) => served.reply(200),
    { path: '/?token=x&y=2&z=3' },
    { query },
  );
  assert.equal((await spans()).facts['url.query'], 'token=***&y=***&z=3');
});

test('of texts without end only so much is carried', async (t) => {
  const headers = { 'user-agent': 'u'.repeat(5_000) };
  const path = `/${'p'.repeat(6_000)}?q=${'q'.repeat(3_000)}`;
  const { spans } = await spansFor(
    t,
    pairing,
    (served) => served.reply(200),
    { path, headers },
    { query: { redact: [] } },
  );
  const { facts } = await spans();
  assert.ok(String(facts['url.path']).length <= 2_010 && String(facts['url.query']).length <= 1_000);
  assert.equal(String(facts['user_agent.original']).length, 500);
});

test('what is not recorded costs nothing here: nothing is kept of it', async (t) => {
  const { recorder, recorded, numbers } = recording();
  const { port } = await serve(t, 'h1', (served) => served.reply(200, 'ok'));
  const tracing = createTracing({ followsParent: true, ratio: 0 });
  const client = (
    await join(t, pairing, port, { options: { tracing, observer: recorder.observer } })
  ).client();
  for (let i = 0; i < 5; i++) assert.equal((await client.ask({})).status, 200);
  recorder.flush();
  assert.deepEqual([recorded.length, [...numbers]], [0, [0, 0]]);
});

test('a message is never longer than may be sent; what is beyond it is dropped, and counted', async (t) => {
  const { recorder, recorded, numbers, messages } = recording({ everyMs: 600_000 });
  const { port } = await serve(t, 'h1', (served) => served.reply(200, 'ok'));
  const options = { tracing: createTracing(all), observer: recorder.observer };
  const client = (await join(t, pairing, port, { options })).client();
  for (let i = 0; i < 60; i++) await client.ask({ path: `/${'p'.repeat(1_900)}` });
  await eventually(() => numbers[SPANS.recorded]! + numbers[SPANS.dropped]! === 120);
  recorder.flush();
  assert.ok(
    messages.every((bytes) => bytes < LONGEST_FROM_WORKER),
    String(messages),
  );
  assert.equal(numbers[SPANS.recorded], 2 * recorded.length);
  assert.ok(numbers[SPANS.dropped]! > 0);
});

test('a supervisor that does not take what it is told is told no more', async (t) => {
  const { recorder, recorded, numbers } = recording({ backlog: () => 2 ** 21 });
  const { port } = await serve(t, 'h1', (served) => served.reply(200, 'ok'));
  const options = { tracing: createTracing(all), observer: recorder.observer };
  const client = (await join(t, pairing, port, { options })).client();
  await client.ask({});
  await eventually(() => numbers[SPANS.dropped] === 2);
  assert.equal(recorded.length, 0);
});
