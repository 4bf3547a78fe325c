// Whose trace a request is in: what strangers and trusted peers say, what the upstream is told, and each attempt by its own name.

import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import {
  createTracing,
  isSampled,
  type Sampling,
  spanIdOf,
  traceIdOf,
} from '../../../proxy/exchange/tracing.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import { type Ask, join, type Pairing, pairings, type Script, serve } from '../../support/pairings.ts';
import { eventually } from '../../support/proxy.ts';

const all: Sampling = { followsParent: true, ratio: 1 };
const none: Sampling = { followsParent: true, ratio: 0 };
const TRACE = '1a'.repeat(16);
const SPAN = '2b'.repeat(8);
const GIVEN = `00-${TRACE}-${SPAN}-01`;
const OURS = /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/;

describe('the ids', () => {
  it('are never made twice, are none of zeros, and have the form of the recommendation', () => {
    const tracing = createTracing(all);
    const made = Array.from({ length: 5_000 }, () => tracing.begin(''));
    assert.ok(made.every((one) => OURS.test(one)));
    assert.equal(new Set(made.map(traceIdOf)).size, made.length);
    assert.equal(new Set(made.map(spanIdOf)).size, made.length);
    const zerosFirst = createTracing(all, (bytes) => {
      bytes.fill(7);
      bytes.fill(0, 0, 24);
    });
    assert.equal(zerosFirst.begin(''), `00-${'07'.repeat(16)}-${'07'.repeat(8)}-01`);
  });

  it('of the next span are of the same trace, with the same flags', () => {
    const tracing = createTracing(none);
    const first = tracing.begin('');
    const next = tracing.next(first);
    assert.equal(traceIdOf(next), traceIdOf(first));
    assert.notEqual(spanIdOf(next), spanIdOf(first));
    assert.equal(next.slice(-2), '00');
  });
});

describe('what is recorded', () => {
  const recorded = (sampling: Sampling, parent = '') =>
    Array.from({ length: 20_000 }, () => createdBy(sampling).begin(parent)).filter(isSampled).length;
  const makers = new Map<Sampling, ReturnType<typeof createTracing>>();
  const createdBy = (sampling: Sampling) => {
    const maker = makers.get(sampling) ?? createTracing(sampling);
    makers.set(sampling, maker);
    return maker;
  };

  it('is the part that was asked for', () => {
    assert.equal(recorded(all), 20_000);
    assert.equal(recorded(none), 0);
    const part = recorded({ followsParent: true, ratio: 0.1 });
    // Ten standard deviations either way.
    assert.ok(part > 1_576 && part < 2_424, `${part} of 20,000`);
  });

  it('is what a parent says, if it is followed; otherwise the trace decides, here as everywhere', () => {
    const parent = (flags: string) => `00-${TRACE}-${SPAN}-${flags}`;
    assert.equal(isSampled(createTracing(none).begin(parent('01'))), true);
    assert.equal(isSampled(createTracing(all).begin(parent('00'))), false);
    const half = createTracing({ followsParent: false, ratio: 0.5 });
    const low = `00-${'f'.repeat(16)}7${'f'.repeat(15)}-${SPAN}-00`;
    const high = `00-${'0'.repeat(16)}8${'0'.repeat(15)}-${SPAN}-01`;
    assert.deepEqual([isSampled(half.begin(low)), isSampled(half.begin(high))], [true, false]);
  });

  it('of what a parent of a later version says, only what is known goes on', () => {
    const made = createTracing(all).begin(`cc-${TRACE}-${SPAN}-ff-and-more`);
    assert.equal(made.slice(0, 36), `00-${TRACE}-`);
    assert.equal(made.slice(-3), '-03');
    assert.notEqual(spanIdOf(made), SPAN);
  });
});

async function traced(
  t: TestContext,
  pairing: Pairing,
  ask: Ask,
  sampling = all,
  options: Partial<ListenerOptions> = {},
  script: Script = (served) => served.reply(200, 'ok'),
) {
  const lines: Record<string, unknown>[] = [];
  const accessLog = createAccessLog((text) => {
    for (const line of text.trimEnd().split('\n')) lines.push(JSON.parse(line));
  });
  const { port, requests } = await serve(t, pairing.upstream, script);
  const all = { tracing: createTracing(sampling), accessLog, ...options };
  const client = (await join(t, pairing, port, { options: all })).client();
  const { status } = await client.ask(ask);
  await eventually(() => lines.length === 1);
  const told = requests.map(({ headers }) => ({
    traceparent: headers.traceparent as string | undefined,
    tracestate: headers.tracestate,
  }));
  return { status, told, line: lines[0]! };
}

const trusted = { trustedForwarders: ['127.0.0.1/32'] };
const fields = { traceparent: GIVEN, tracestate: 'rojo=1' };

for (const pairing of pairings) {
  describe(pairing.name, () => {
    it('a stranger is in nobody’s trace: a new one begins, and the log has our span of it', async (t) => {
      const { told, line } = await traced(t, pairing, { headers: fields });
      const { traceparent = '', tracestate } = told[0]!;
      assert.match(traceparent, OURS);
      assert.equal(tracestate, undefined);
      assert.notEqual(traceIdOf(traceparent), TRACE);
      assert.equal(traceIdOf(String(line.traceparent)), traceIdOf(traceparent));
      assert.notEqual(spanIdOf(String(line.traceparent)), spanIdOf(traceparent));
    });

    it('the trace of a trusted peer goes on: the upstream’s parent is our span, and the state stays', async (t) => {
      const { told } = await traced(t, pairing, { headers: fields }, none, trusted);
      const { traceparent = '', tracestate } = told[0]!;
      assert.deepEqual([traceIdOf(traceparent), tracestate], [TRACE, 'rojo=1']);
      assert.notEqual(spanIdOf(traceparent), SPAN);
      assert.equal(isSampled(traceparent), true);
    });

    it('what a trusted peer says malformed begins anew, and nothing of it passes', async (t) => {
      const headers = { ...fields, traceparent: `${GIVEN}-more` };
      const { told } = await traced(t, pairing, { headers }, all, trusted);
      const { traceparent = '', tracestate } = told[0]!;
      assert.match(traceparent, OURS);
      assert.deepEqual([traceIdOf(traceparent) === TRACE, tracestate], [false, undefined]);
    });

    it('one that is not recorded says so to the upstream', async (t) => {
      const { told, line } = await traced(t, pairing, {}, none);
      assert.match(told[0]!.traceparent!, /-00$/);
      assert.equal(line.traceparent, told[0]!.traceparent);
    });

    it('a request that is sent again: another span of the same trace', async (t) => {
      const script: Script = (served) => (served.index === 0 ? served.cut() : served.reply(200, 'ok'));
      const { told, status } = await traced(t, pairing, {}, all, {}, script);
      const [first = '', second = ''] = told.map(({ traceparent }) => traceparent!);
      assert.deepEqual([status, told.length], [200, 2]);
      assert.equal(traceIdOf(first), traceIdOf(second));
      assert.notEqual(spanIdOf(first), spanIdOf(second));
    });
  });
}
