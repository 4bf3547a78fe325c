// Propagation is what every server of the zone says; resolvers are asked afterwards, and their caches do not hold us up.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { DnsRecord } from '../../dns/provider.ts';
import { createResolver, waitForRecords } from '../../dns/resolver.ts';
import { createPlainExchange } from '../../dns/wire/exchange.ts';
import { encodeMessage } from '../../dns/wire/message.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { createLog } from '../../src/lib/log.ts';
import { type DnsDouble, startDnsDouble } from '../support/dns-double.ts';

const challenge: DnsRecord = { name: '_acme-challenge.app.example.com', type: 'TXT', value: 'ours' };
const text = `TXT ${challenge.name}`;

const doubles: DnsDouble[] = [];
after(() => Promise.all(doubles.map((double) => double.stop())));

/** A recursive resolver that knows the delegations, and two servers of each zone at addresses of their own. */
async function world() {
  const start = async (table: Record<string, string[]>) => {
    const double = await startDnsDouble(table);
    doubles.push(double);
    return double;
  };
  const one = await start({});
  const two = await start({});
  const other = await start({});
  const recursive = await start({
    'NS example.com': ['ns1.example.com', 'ns2.example.com'],
    'NS example.net': ['ns.example.net'],
    'A ns1.example.com': ['192.0.2.1'],
    'A ns2.example.com': ['192.0.2.2'],
    'A ns.example.net': ['192.0.2.3'],
  });
  const at: Record<string, DnsDouble> = { '192.0.2.1': one, '192.0.2.2': two, '192.0.2.3': other };
  const resolver = createResolver({
    servers: [recursive.server],
    timeoutMs: 200,
    authoritative: {
      exchangeWith: (address) =>
        createPlainExchange(at[address]!.server, { recursion: false, timeoutMs: 200 }),
    },
  });
  return { one, two, other, recursive, resolver };
}

function fastClock(onSleep: (sleeps: number) => void = () => {}): Clock {
  let now = 0;
  let sleeps = 0;
  return {
    now: () => new Date(now),
    async sleep(ms) {
      now += ms;
      onSleep(++sleeps);
    },
  };
}

const holds = (double: DnsDouble, values: string[] = ['ours']) => double.table.set(text, values);

test('a lagging server of the zone is waited for', async () => {
  const { one, two, recursive, resolver } = await world();
  for (const double of [one, recursive]) holds(double);
  holds(two, ['old']);
  let looks = 0;
  const clock = fastClock((sleeps) => {
    looks = sleeps;
    if (sleeps === 3) holds(two, ['old', 'ours']);
  });
  await waitForRecords([challenge], { resolver, timeoutMs: 60_000, clock });
  assert.equal(looks, 3);
});

test('resolvers are not asked for a name before its own servers have it, so that none remembers its absence', async () => {
  const { one, two, recursive, resolver } = await world();
  holds(one);
  const clock = fastClock((sleeps) => {
    if (sleeps !== 4) return;
    assert.deepEqual(
      recursive.asked.filter(({ question }) => question.name === challenge.name),
      [],
    );
    holds(two);
    holds(recursive);
  });
  await waitForRecords([challenge], { resolver, timeoutMs: 60_000, clock });
});

test('a resolver that is stuck on an old answer is left behind after a while, with a warning', async () => {
  const { one, two, resolver } = await world();
  holds(one);
  holds(two);
  const lines: Record<string, unknown>[] = [];
  const stream = {
    write: (line: string) => lines.push(JSON.parse(line)),
  } as unknown as NodeJS.WritableStream;
  const clock = fastClock();
  await waitForRecords([challenge], {
    resolver,
    timeoutMs: 900_000,
    secondOpinionMs: 60_000,
    clock,
    log: createLog({ stream }),
  });
  assert.equal(clock.now().getTime(), 60_000);
  assert.equal(lines.at(-1)?.msg, 'a resolver does not see a DNS record yet');
});

test('an alias into another zone is followed to the servers of that zone', async () => {
  const { one, two, other, recursive, resolver } = await world();
  for (const double of [one, two]) double.table.set(`CNAME ${challenge.name}`, ['x.example.net']);
  for (const double of [other, recursive]) double.table.set('TXT x.example.net', ['ours']);
  recursive.table.set(`CNAME ${challenge.name}`, ['x.example.net']);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() });
  other.table.set('TXT x.example.net', ['other']);
  await assert.rejects(waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() }), {
    code: 'not-visible',
  });
});

test('one silent server of two is passed over; when all are silent the resolvers decide', async () => {
  const { one, two, recursive, resolver } = await world();
  two.misanswer(() => []);
  for (const double of [one, recursive]) holds(double);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() });
  one.misanswer(() => []);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() });
  recursive.table.delete(text);
  await assert.rejects(waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() }), {
    code: 'not-visible',
  });
});

test('where port 53 is closed a fixed wait is added, since one server that has the record is not all of them', async () => {
  const { one, two, recursive, resolver } = await world();
  for (const double of [one, two, recursive]) holds(double);
  const slept: number[] = [];
  const clock = { now: () => new Date(), sleep: async (ms: number) => void slept.push(ms) };
  await waitForRecords([challenge], { resolver, timeoutMs: 0, blindWaitMs: 30_000, clock });
  assert.deepEqual(slept, [], 'the servers were asked');
  for (const double of [one, two]) double.misanswer(() => []);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, blindWaitMs: 30_000, clock });
  assert.deepEqual(slept, [30_000]);
});

test('a server that does not hold the zone is no authority on it', async () => {
  const { one, two, recursive, resolver } = await world();
  for (const double of [one, two]) {
    double.misanswer((asked) => [
      encodeMessage({
        id: asked.query.readUInt16BE(),
        flags: 0x8180,
        questions: [asked.question],
        answers: [],
        authority: [],
        additional: [],
      }),
    ]);
  }
  holds(recursive);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() });
});

test('the servers of a zone are asked without recursion', async () => {
  const { one, two, recursive, resolver } = await world();
  for (const double of [one, two, recursive]) holds(double);
  await waitForRecords([challenge], { resolver, timeoutMs: 0, clock: fastClock() });
  assert.equal(one.asked[0]!.query.readUInt16BE(2) & 0x0100, 0);
  assert.notEqual(recursive.asked[0]!.query.readUInt16BE(2) & 0x0100, 0);
});

test('a pin beside an alias is asked of the zone’s own servers only, and not waited for without end', async () => {
  const { one, two, recursive, resolver } = await world();
  const alias: DnsRecord = { name: 'app.example.com', type: 'CNAME', value: 'gw.example.org' };
  const pin: DnsRecord = { name: 'app.example.com', type: 'CAA', value: '0 issue "ca.example"' };
  for (const double of [one, two, recursive]) double.table.set('CNAME app.example.com', [alias.value]);
  for (const double of [one, two]) double.table.set('CAA app.example.com', [pin.value]);
  await waitForRecords([alias, pin], { resolver, timeoutMs: 0, clock: fastClock() });
  assert.ok(recursive.asked.every(({ question }) => question.type !== 257));
  for (const double of [one, two]) double.table.delete('CAA app.example.com');
  const clock = fastClock();
  await waitForRecords([alias, pin], { resolver, timeoutMs: 900_000, clock });
  assert.ok(clock.now().getTime() <= 60_000, String(clock.now().getTime()));
});

test('the name servers of an alias’s target are not taken for those of the name', async () => {
  const { recursive, resolver } = await world();
  recursive.table.set('CNAME app.example.com', ['example.net']);
  const views = await resolver.authority!.viewsOf('app.example.com');
  assert.deepEqual(
    views.map(({ server }) => server),
    ['ns1.example.com (192.0.2.1)', 'ns2.example.com (192.0.2.2)'],
  );
});
