// The moments of an exchange: an observer is told of each, in order and once, whatever is spoken on either side.

import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { ExchangeObserver, Observed } from '../../../proxy/exchange/observe.ts';
import { type Ask, join, type Pairing, pairings, type Script, serve } from '../../support/pairings.ts';
import { eventually, HOST } from '../../support/proxy.ts';

type Moments = Exclude<keyof ExchangeObserver, 'reads'>;

interface Moment extends Readonly<ReturnType<typeof valuesOf>> {
  readonly moment: Moments;
}

/** The exchange may be used for the next request: what is kept are values. */
function valuesOf(exchange: Observed) {
  const { protocol, method, host, target, status, received, sent, attempts, fault, startedAt, replyAt } =
    exchange;
  const route = exchange.match?.route;
  const port = exchange.upstream?.port;
  return {
    protocol,
    method,
    host,
    target,
    route,
    port,
    status,
    received,
    sent,
    attempts,
    fault,
    startedAt,
    replyAt,
  };
}

async function observe(t: TestContext, pairing: Pairing, script: Script, ask: Ask) {
  const moments: Moment[] = [];
  const note = (moment: Moments) => (exchange: Observed) =>
    void moments.push({ moment, ...valuesOf(exchange) });
  const names: readonly Moments[] = [
    'headTaken',
    'upstreamChosen',
    'upstreamDone',
    'sentAgain',
    'replyBegun',
    'over',
  ];
  const observer: ExchangeObserver = Object.fromEntries(names.map((name) => [name, note(name)]));
  const { port, requests } = await serve(t, pairing.upstream, script);
  const client = (await join(t, pairing, port, { options: { observer } })).client();
  const answer = client.ask(ask);
  const over = () => eventually(() => moments.some(({ moment }) => moment === 'over'));
  return { answer, client, moments, over, port, requests, told: () => moments.map(({ moment }) => moment) };
}

const POST = { method: 'POST', path: '/a?b', body: 'four' } as const;
const PROTOCOLS = { h1: 'http/1.1', h2: 'h2' } as const;

for (const pairing of pairings) {
  describe(pairing.name, () => {
    it('a request that is served: what was asked, of whom, and what went each way', async (t) => {
      const seen = await observe(
        t,
        pairing,
        (served) => void served.body.then(() => served.reply(201, 'ok')),
        POST,
      );
      assert.equal((await seen.answer).status, 201);
      await seen.over();
      assert.deepEqual(seen.told(), ['headTaken', 'upstreamChosen', 'upstreamDone', 'replyBegun', 'over']);
      const { startedAt, replyAt, ...last } = seen.moments.at(-1)!;
      assert.ok(startedAt > 0 && replyAt >= startedAt);
      assert.deepEqual(last, {
        moment: 'over',
        protocol: PROTOCOLS[pairing.client],
        method: 'POST',
        host: HOST,
        target: '/a?b',
        route: `${HOST}/`,
        port: seen.port,
        status: 201,
        received: 4,
        sent: 2,
        attempts: 1,
        fault: undefined,
      });
    });

    it('a request that is sent again: each upstream that was chosen', async (t) => {
      const script: Script = (served) => (served.index === 0 ? served.cut() : served.reply(200, 'ok'));
      const seen = await observe(t, pairing, script, {});
      assert.equal((await seen.answer).status, 200);
      await seen.over();
      assert.deepEqual(seen.told(), [
        'headTaken',
        'upstreamChosen',
        'upstreamDone',
        'sentAgain',
        'upstreamChosen',
        'upstreamDone',
        'replyBegun',
        'over',
      ]);
      assert.equal(seen.moments.at(-1)!.attempts, 2);
    });

    it('a request that is refused: why, and nothing of an upstream', async (t) => {
      const seen = await observe(t, pairing, () => {}, { host: 'other.example.com' });
      assert.equal((await seen.answer).status, 404);
      await seen.over();
      assert.deepEqual(seen.told(), ['headTaken', 'replyBegun', 'over']);
      const { fault, status, attempts } = seen.moments.at(-1)!;
      assert.deepEqual([fault, status, attempts], ['no-route', 404, 0]);
    });

    it('a client that goes away: that it did', async (t) => {
      const seen = await observe(t, pairing, () => {}, {});
      await eventually(() => seen.requests.length === 1);
      seen.client.close();
      await seen.over();
      assert.deepEqual(seen.told(), ['headTaken', 'upstreamChosen', 'upstreamDone', 'over']);
      const { fault, status } = seen.moments.at(-1)!;
      assert.deepEqual([fault, status], ['client-closed', 499]);
      await seen.answer;
    });
  });
}
